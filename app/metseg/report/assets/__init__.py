"""Templates, styles and scripts of the pages; `niivue.umd.js` is NiiVue 0.68.1 as nilearn 0.14.1 carries it (BSD-2)."""
