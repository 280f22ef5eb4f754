"""The papers' methods, trained and scored, beside the tables of Erdur et al. 2023 and Hu et al. 2019."""
