// How many rows each nano dataset has, and its seed: the cards, the build and the tests read it here.
export const sizes = {
  desk: { rows: 64000, heldout: 300, seed: 101 },
  tickets: { rows: 2000, heldout: 200, seed: 201 },
  discretion: { rows: 240, heldout: 60, seed: 401 },
  screening: { rows: 9000, forms: 12000, ids: 5000, added: 4800, heldout: 400, perForm: 20, seed: 301 },
};
