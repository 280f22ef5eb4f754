"use strict";
// One case in NiiVue: image and overlay, opacity, and a crosshair that follows the lesion table.
const state = JSON.parse(document.getElementById("state").textContent);
const field = (name) => document.getElementById(name);
const place = field("place");

function channel(colour, index) {
  return Number.parseInt(colour.slice(1 + 2 * index, 3 + 2 * index), 16);
}

// What a label means depends on the file that shows it.
function overlayLabels() {
  return state.labels[field("overlay").value] || [];
}

// Label 0 is transparent; values in between, which a label map doesn't hold, don't matter.
function labelColours() {
  const all = [{ value: 0, name: "", colour: "#000000" }, ...overlayLabels()];
  const table = { R: [], G: [], B: [], A: [], I: [], labels: [] };
  for (const label of all) {
    table.R.push(channel(label.colour, 0));
    table.G.push(channel(label.colour, 1));
    table.B.push(channel(label.colour, 2));
    table.A.push(label.value === 0 ? 0 : 255);
    table.I.push(label.value);
    table.labels.push(label.name);
  }
  return table;
}

function labelName(value) {
  const found = overlayLabels().find((label) => label.value === value);
  return found ? found.name : "no tumour";
}

function plainNumber(value) {
  // Never in scientific notation.
  return value.toLocaleString("en", { maximumSignificantDigits: 6, useGrouping: false });
}

function showPlace(location) {
  const [right, anterior, superior] = location.mm;
  const parts = [`R ${right.toFixed(1)}, A ${anterior.toFixed(1)}, S ${superior.toFixed(1)} mm`];
  if (location.values.length > 0) parts.push(`${field("image").value} ${plainNumber(location.values[0].value)}`);
  if (location.values.length > 1) parts.push(labelName(Math.round(location.values[1].value)));
  place.textContent = parts.join(": ");
  place.dataset.mm = JSON.stringify(Array.from(location.mm).slice(0, 3));
}

function moveTo(viewer, mm) {
  viewer.scene.crosshairPos = viewer.mm2frac(mm);
  viewer.drawScene();
  viewer.createOnLocationChange();
}

function markRow(chosen) {
  for (const row of document.querySelectorAll("[data-lesion]")) {
    row.setAttribute("aria-current", String(row === chosen));
    row.querySelector("button").setAttribute("aria-pressed", String(row === chosen));
  }
}

function applyOverlay(viewer) {
  if (viewer.volumes.length < 2) return;
  viewer.volumes[1].setColormapLabel(labelColours());
  viewer.overlayOutlineWidth = field("outline").checked ? 0.5 : 0;
  viewer.setOpacity(1, Number(field("opacity").value));
  viewer.updateGLVolume();
}

// Grey ends: percentiles of what is not background, as in the report's pictures; a CT has a brain window.
function setWindow(volume, fixed) {
  if (fixed) {
    [volume.cal_min, volume.cal_max] = fixed;
    return;
  }
  const stride = Math.max(1, Math.floor(volume.img.length / 200000));
  const values = [];
  for (let place = 0; place < volume.img.length; place += stride) {
    if (volume.img[place] !== 0) values.push(volume.img[place]);
  }
  if (values.length === 0) return;
  values.sort((a, b) => a - b);
  const slope = volume.hdr.scl_slope || 1;
  const at = (share) => values[Math.floor(share * (values.length - 1))] * slope + (volume.hdr.scl_inter || 0);
  volume.cal_min = Math.min(at(0.005), at(0.997));
  volume.cal_max = Math.max(at(0.005), at(0.997));
}

async function load(viewer) {
  const before = place.dataset.mm ? JSON.parse(place.dataset.mm) : null;
  const chosen = [field("image").value, field("overlay").value].filter(Boolean);
  await viewer.loadVolumes(chosen.map((name) => ({ url: state.volumes[name], name: state.volumes[name].split("/").pop() })));
  setWindow(viewer.volumes[0], state.windows[field("image").value]);
  viewer.updateGLVolume();
  applyOverlay(viewer);
  if (before) moveTo(viewer, before);
}

const STEPS = {
  ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
};

async function start() {
  const viewer = new niivue.Niivue({
    isRadiologicalConvention: true,
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.9, 0.62, 0, 1],
    dragAndDropEnabled: false,
    logLevel: "error",
    multiplanarShowRender: 0,
    multiplanarLayout: 0,
    multiplanarPadPixels: 16, // or one plane's letters run into the next one's
    crosshairWidth: 1, // half a millimetre may fall between two pixels
    crosshairWidthUnit: "mm",
    crosshairGap: 6,
    sagittalNoseLeft: true,
    showAllOrientationMarkers: true,
    sliceType: 3,
  });
  viewer.onLocationChange = showPlace;
  await viewer.attachToCanvas(field("gl"));
  viewer.setInterpolation(true); // nearest: a lesion of one voxel must not fade into its surroundings
  await load(viewer);
  field("image").addEventListener("change", () => load(viewer));
  field("overlay").addEventListener("change", () => load(viewer));
  field("opacity").addEventListener("input", () => applyOverlay(viewer));
  field("outline").addEventListener("change", () => applyOverlay(viewer));
  field("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const lesion of state.lesions) {
    const row = document.querySelector(`[data-lesion="${lesion.number}"]`);
    row.addEventListener("click", () => { moveTo(viewer, lesion.mm); markRow(row); });
  }
  field("gl").addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const mm = JSON.parse(place.dataset.mm);
    moveTo(viewer, mm.map((value, axis) => value + step[axis]));
  }, true);
  if (state.lesions.length > 0) document.querySelector("[data-lesion]").click();
  else moveTo(viewer, Array.from(viewer.frac2mm([0.5, 0.5, 0.5])).slice(0, 3));
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  place.textContent = `The viewer can't start: ${error.message || error}. It needs a browser with WebGL 2.`;
  document.documentElement.dataset.ready = "failed";
});
