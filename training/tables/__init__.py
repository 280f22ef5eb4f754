"""The paper's methods, trained and scored, beside Tables 3 to 6 of Erdur et al. 2023."""
