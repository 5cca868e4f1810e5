/**
 * Reads tiles out of a PMTiles file, range by range (version 3, github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md).
 *
 * @typedef {object} Header
 * @property {number} rootAt where the root directory begins, and how long it is
 * @property {number} rootBytes
 * @property {number} leavesAt
 * @property {number} tilesAt
 * @property {number} compression of directories and tiles, each as in the specification
 * @property {number} tileCompression
 * @property {number} tileType
 * @property {number} minZoom
 * @property {number} maxZoom
 * @property {[west: number, south: number, east: number, north: number]} bounds
 *
 * @typedef {object} Entry
 * @property {number} id of the first tile
 * @property {number} run how many tiles are these bytes; of a directory 0
 * @property {number} at
 * @property {number} bytes
 */

const HEADER_BYTES = 127;
const NONE = 1;
const GZIP = 2;
const MOST_DEPTH = 4;

/** A tile type of the header: vector tiles. */
export const VECTOR = 1;

export class Tiles {
  #url;
  /** @type {Promise<Header> | null} */
  #header = null;
  /** @type {Map<number, Promise<Entry[]>>} directories by where they begin */
  #directories = new Map();

  /** @param {string} url */
  constructor(url) {
    this.#url = url;
  }

  /** What the file says of itself. */
  header() {
    this.#header ??= this.#read(0, HEADER_BYTES).then(headerOf);
    return this.#header;
  }

  /**
   * A tile's bytes, inflated; null if the file has none there.
   *
   * @param {number} z
   * @param {number} x
   * @param {number} y
   * @returns {Promise<ArrayBuffer | null>}
   */
  async tile(z, x, y) {
    const header = await this.header();
    const id = tileId(z, x, y);
    let [at, bytes] = [header.rootAt, header.rootBytes];
    for (let depth = 0; depth < MOST_DEPTH; depth += 1) {
      const entry = find(await this.#directory(at, bytes, header), id);
      if (!entry) return null;
      if (entry.run) return inflated(await this.#read(header.tilesAt + entry.at, entry.bytes), header.tileCompression);
      [at, bytes] = [header.leavesAt + entry.at, entry.bytes];
    }
    return null;
  }

  #directory(at, bytes, header) {
    const known = this.#directories.get(at);
    if (known) return known;
    const read = this.#read(at, bytes).then((found) => inflated(found, header.compression)).then(entriesOf);
    this.#directories.set(at, read);
    return read;
  }

  async #read(at, bytes) {
    const response = await fetch(this.#url, { headers: { Range: `bytes=${at}-${at + bytes - 1}` }, credentials: "omit" });
    if (response.status !== 206) throw new Error(`the file of map tiles can't be read: ${response.status}`);
    return response.arrayBuffer();
  }
}

/** @returns {Header} */
function headerOf(buffer) {
  const view = new DataView(buffer);
  const long = (at) => Number(view.getBigUint64(at, true));
  const degrees = (at) => view.getInt32(at, true) / 1e7;
  return {
    rootAt: long(8),
    rootBytes: long(16),
    leavesAt: long(40),
    tilesAt: long(56),
    compression: view.getUint8(97),
    tileCompression: view.getUint8(98),
    tileType: view.getUint8(99),
    minZoom: view.getUint8(100),
    maxZoom: view.getUint8(101),
    bounds: [degrees(102), degrees(106), degrees(110), degrees(114)],
  };
}

/** @returns {Promise<ArrayBuffer>} */
async function inflated(buffer, compression) {
  if (compression === NONE) return buffer;
  if (compression !== GZIP) throw new Error(`map tiles compressed in another way than gzip can't be read: ${compression}`);
  return new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/**
 * A directory: columns of variable-length integers, of which the first has differences of ids, and the last has zero where
 * an entry follows the one before.
 *
 * @param {ArrayBuffer} buffer
 * @returns {Entry[]}
 */
function entriesOf(buffer) {
  const next = integers(new Uint8Array(buffer));
  const found = Array.from({ length: next() }, () => ({ id: 0, run: 0, at: 0, bytes: 0 }));
  let id = 0;
  for (const entry of found) entry.id = id += next();
  for (const entry of found) entry.run = next();
  for (const entry of found) entry.bytes = next();
  found.forEach((entry, index) => {
    const at = next();
    entry.at = at ? at - 1 : found[index - 1].at + found[index - 1].bytes;
  });
  return found;
}

/** Reads integers of seven bits a byte, the least first. */
function integers(bytes) {
  let at = 0;
  return () => {
    let [value, factor] = [0, 1];
    for (;;) {
      const byte = bytes[at];
      at += 1;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 0x80;
    }
  };
}

/** The entry that has a tile, or leads to it. */
function find(entries, id) {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle].id <= id) low = middle + 1;
    else high = middle;
  }
  const entry = entries[low - 1];
  return entry && (entry.run === 0 || id < entry.id + entry.run) ? entry : null;
}

/** A tile's number: those of lesser zooms come first, then its place on a Hilbert curve. */
export function tileId(z, x, y) {
  const side = 2 ** z;
  let id = (4 ** z - 1) / 3;
  for (let half = side / 2; half >= 1; half /= 2) {
    const right = x & half ? 1 : 0;
    const below = y & half ? 1 : 0;
    id += half * half * ((3 * right) ^ below);
    if (!below) {
      if (right) [x, y] = [side - 1 - x, side - 1 - y];
      [x, y] = [y, x];
    }
  }
  return id;
}
