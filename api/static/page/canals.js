/** Canals of the base map for sea-going ships, which the coasts of Natural Earth leave out: lines of [longitude, latitude]. */

/** Suez, from Port Said to the bay of Suez: the middle of the ways that ships took through it. */
const SUEZ = [
  [32.359, 31.28], [32.337, 31.2], [32.314, 31.12], [32.309, 31.08], [32.311, 31.0], [32.315, 30.88], [32.318, 30.8],
  [32.325, 30.76], [32.344, 30.71], [32.344, 30.68], [32.338, 30.64], [32.324, 30.6], [32.315, 30.56], [32.341, 30.52],
  [32.348, 30.48], [32.363, 30.4], [32.373, 30.36], [32.407, 30.32], [32.462, 30.28], [32.537, 30.24], [32.566, 30.2],
  [32.57, 30.12], [32.571, 30.08], [32.576, 30.04], [32.583, 30.0], [32.584, 29.96], [32.55, 29.92],
];

export const CANALS = { type: "Feature", geometry: { type: "MultiLineString", coordinates: [SUEZ] }, properties: {} };
