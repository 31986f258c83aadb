/**
 * QR codes in pictures of a mail. Bun decodes the picture; where it shows the three squares of a
 * code, zxing reads it: in WebAssembly, loaded only then, since it is the reader whose maker
 * still mends it. It runs in an inspector process, which may be killed.
 */
import { inflateSync } from 'node:zlib'
import { decodeText, fieldValue, plainLine } from '../../message/header.ts'
import type { Mail, Part } from '../../message/mime.ts'
import { type Drawing, joined, type Pixels, picturesOfCells, rendered } from './drawn.ts'
import { framesOf } from './gif.ts'

/** A code that was read. */
export type Code = {
  /** What it says, usually a link; at most 2,000 characters. */
  readonly text: string
  /** The picture in which it stands, a clean name. */
  readonly name: string
}

/** Pictures that are decoded of one mail, and their octets. */
const PICTURES_MAX = 8
const BYTES_MAX = 6 * 1024 * 1024
/** No code is in fewer octets or on shorter edges. */
const BYTES_MIN = 120
const EDGE_MIN = 42
/** Pixels of a picture before it is made smaller: a phone's photo, not a bomb. */
const PIXELS_MAX = 25_000_000
/** Longest edge that is searched. */
const EDGE_MAX = 1_000
const CODES_MAX = 8
const TEXT_CHARS_MAX = 2_000

/** Pictures among the parts of a mail that could hold a code. */
export function picturesOf(mail: Mail): readonly Part[] {
  return mail.leaves
    .filter((part) => part.type.startsWith('image/') || part.names.some(isPictureName))
    .filter(({ start, end }) => end - start >= BYTES_MIN && end - start <= BYTES_MAX * 1.4)
    .slice(0, PICTURES_MAX)
}

function isPictureName(name: string): boolean {
  return /\.(?:png|jpe?g|gif|webp|bmp)$/i.test(name.trim())
}

/** What a mail shows besides its pictures. */
export type Shown = {
  /** Pictures that the markup carries inside itself, as `data:` links. */
  readonly pictures: readonly string[]
  readonly drawings: readonly Drawing[]
  /** Brightness of table cells, 0 to 255, by row. */
  readonly cells: readonly (readonly number[])[]
}

export const SHOWS_NOTHING: Shown = { pictures: [], drawings: [], cells: [] }

export type Codes = {
  readonly codes: readonly Code[]
  /** Names of pictures that have too many pixels to be looked at. */
  readonly tooLarge: readonly string[]
}

/** Codes in the pictures of `mail` and in what it shows besides. Never rejects: a picture that nobody can decode shows none. */
export async function codesOf(mail: Mail, shown: Shown = SHOWS_NOTHING): Promise<Codes> {
  const codes: Code[] = []
  const tooLarge: string[] = []
  const see = async (pixels: Pixels, name: string): Promise<boolean> => {
    const texts = await codesIn(pixels)
    codes.push(...texts.map((text) => ({ text, name })))
    return texts.length > 0
  }
  const pieces: Pixels[] = []
  for (const { bytes, name } of picturesIn(mail, shown.pictures)) {
    if (codes.length >= CODES_MAX) break
    for (const one of [bytes, ...framesOf(bytes)]) {
      const pixels = await pixelsIn(one)
      if (pixels === 'too large') tooLarge.push(name)
      else if (pixels !== null && !(await see(pixels, name)) && one === bytes) pieces.push(pixels)
    }
  }
  // A code in pieces is none to who looks at each, and whole to who reads the mail.
  for (const whole of joined(pieces))
    if (codes.length < CODES_MAX) await see(whole, 'pictures side by side')
  for (const drawing of shown.drawings) await see(rendered(drawing), 'characters')
  for (const cells of picturesOfCells(shown.cells)) await see(cells, 'a table')
  return { codes: codes.slice(0, CODES_MAX), tooLarge }
}

function* picturesIn(
  mail: Mail,
  links: readonly string[],
): Generator<{ bytes: Buffer; name: string }> {
  for (const link of links.slice(0, PICTURES_MAX))
    yield { bytes: Buffer.from(link.slice(link.indexOf(',') + 1), 'base64'), name: 'the markup' }
  for (const part of picturesOf(mail)) {
    const [bytes] = mail.contents(part)
    if (bytes === undefined || bytes.length > BYTES_MAX) continue
    const name = plainLine(
      decodeText(part.names[0] ?? fieldValue(part.header, 'content-id') ?? ''),
      80,
    )
    yield { bytes, name: name === '' ? 'a picture' : name }
  }
}

/** What the codes in one picture say: PNG, JPEG, GIF, WebP or BMP. Never rejects. */
export async function readCodes(picture: Buffer): Promise<readonly string[]> {
  const pixels = await pixelsIn(picture)
  return pixels === null || pixels === 'too large' ? [] : codesIn(pixels)
}

/** The picture, made smaller where it is large. Null: nobody can decode it, or it is too small to show a code. */
async function pixelsIn(picture: Buffer): Promise<Pixels | 'too large' | null> {
  try {
    const { width, height } = await new Bun.Image(picture, { maxPixels: PIXELS_MAX }).metadata()
    if (Math.min(width, height) < EDGE_MIN) return null
    const png = await new Bun.Image(picture, { maxPixels: PIXELS_MAX })
      .resize(Math.min(EDGE_MAX, width), Math.min(EDGE_MAX, height), {
        fit: 'inside',
        withoutEnlargement: true,
      })
      .png({ compressionLevel: 0 })
      .buffer()
    return pixelsOf(png)
  } catch (error) {
    return (error as { code?: unknown }).code === 'ERR_IMAGE_TOO_MANY_PIXELS' ? 'too large' : null
  }
}

async function codesIn(pixels: Pixels): Promise<readonly string[]> {
  if (!hasSquares(pixels)) return []
  try {
    return await decode(pixels)
  } catch {
    return []
  }
}

/** Brightness of each pixel of a PNG that Bun wrote: eight bits, unfiltered lines; null: it is another. */
function pixelsOf(png: Buffer): Pixels | null {
  let width = 0
  let height = 0
  let channels = 0
  const pieces: Buffer[] = []
  for (let at = 8; at + 12 <= png.length; ) {
    const length = png.readUInt32BE(at)
    const type = png.toString('latin1', at + 4, at + 8)
    const data = png.subarray(at + 8, at + 8 + length)
    if (type === 'IHDR') {
      width = data.readUInt32BE(0)
      height = data.readUInt32BE(4)
      channels = data[8] === 8 ? ([1, 0, 3, 0, 2, 0, 4][data[9] ?? 1] ?? 0) : 0
    } else if (type === 'IDAT') pieces.push(data)
    at += 12 + length
  }
  if (channels === 0) return null
  const lines = inflateSync(Buffer.concat(pieces))
  const stride = width * channels + 1
  if (lines.length < stride * height) return null
  const gray = new Uint8Array(width * height)
  for (let y = 0; y < height; y += 1) {
    if (lines[y * stride] !== 0) return null
    for (let x = 0; x < width; x += 1) {
      gray[y * width + x] = brightness(lines, y * stride + 1 + x * channels, channels)
    }
  }
  return { width, height, gray }
}

/** Over white, as a page shows what is transparent. */
function brightness(lines: Buffer, at: number, channels: number): number {
  const first = lines[at] as number
  if (channels === 1) return first
  const colour = channels > 2
  const light = colour
    ? (first * 77 + (lines[at + 1] as number) * 150 + (lines[at + 2] as number) * 29) >> 8
    : first
  if (channels === 3) return light
  const alpha = lines[at + (colour ? 3 : 1)] as number
  return 255 - (((255 - light) * alpha) >> 8)
}

/** Lines through a square's middle that must meet the pattern, over all squares. */
const CROSSINGS_MIN = 4

/**
 * Somewhere stand the squares of a code: runs of 1:1:3:1:1 across and down, dark in light or
 * light in dark. Cheaper by far than to read it, and logos and photos have none.
 */
export function hasSquares({ width, height, gray }: Pixels): boolean {
  let crossings = 0
  const runs = new Int32Array(width + 1)
  for (let y = 0; y < height; y += 1) {
    const row = y * width
    let low = 255
    let high = 0
    for (let x = 0; x < width; x += 1) {
      const value = gray[row + x] as number
      if (value < low) low = value
      if (value > high) high = value
    }
    if (high - low < 48) continue
    const middle = (low + high) >> 1
    let count = 0
    let from = 0
    let dark = (gray[row] as number) < middle
    for (let x = 1; x <= width; x += 1) {
      const now = x < width && (gray[row + x] as number) < middle
      if (x < width && now === dark) continue
      runs[count] = x - from
      count += 1
      from = x
      dark = now
      if (count < 5 || !isSquare(runs, count)) continue
      const centre =
        x -
        (runs[count - 1] as number) -
        (runs[count - 2] as number) -
        ((runs[count - 3] as number) >> 1)
      if (crossesDown(gray, width, height, centre, y, middle)) {
        crossings += 1
        if (crossings >= CROSSINGS_MIN) return true
      }
    }
  }
  return false
}

/** The last five of `count` runs are 1:1:3:1:1, each within half a module. */
function isSquare(runs: Int32Array, count: number): boolean {
  const a = runs[count - 5] as number
  const b = runs[count - 4] as number
  const c = runs[count - 3] as number
  const d = runs[count - 2] as number
  const e = runs[count - 1] as number
  const module = (a + b + c + d + e) / 7
  const slack = module * 0.6 + 0.5
  return (
    Math.abs(c - 3 * module) <= slack * 2 &&
    Math.abs(a - module) <= slack &&
    Math.abs(b - module) <= slack &&
    Math.abs(d - module) <= slack &&
    Math.abs(e - module) <= slack
  )
}

function crossesDown(
  gray: Uint8Array,
  width: number,
  height: number,
  x: number,
  y: number,
  middle: number,
): boolean {
  const dark = (at: number): boolean => (gray[at * width + x] as number) < middle
  const core = dark(y)
  const runs = new Int32Array(5)
  /** Up and down from the middle: the core, the ring of the other colour, the outer ring. */
  for (const step of [-1, 1]) {
    let colour = core
    let ring = 0
    for (let at = step === -1 ? y : y + 1; at >= 0 && at < height && ring < 3; at += step) {
      if (dark(at) !== colour) {
        colour = !colour
        ring += 1
        if (ring === 3) break
      }
      const index = 2 + step * ring
      runs[index] = (runs[index] ?? 0) + 1
    }
  }
  return runs.every((run) => run > 0) && isSquare(runs, 5)
}

type Reader = typeof import('zxing-wasm/reader')
let reader: Promise<Reader> | null = null

async function load(): Promise<Reader> {
  const [zxing, { default: path }] = await Promise.all([
    import('zxing-wasm/reader'),
    import('zxing-wasm/reader/zxing_reader.wasm', { with: { type: 'file' } }),
  ])
  const wasmBinary = await Bun.file(path).arrayBuffer()
  await zxing.prepareZXingModule({ overrides: { wasmBinary }, fireImmediately: true })
  return zxing
}

async function decode({ width, height, gray }: Pixels): Promise<readonly string[]> {
  reader ??= load()
  const { readBarcodes } = await reader
  const four = new Uint32Array(width * height)
  for (let at = 0; at < gray.length; at += 1) four[at] = (gray[at] as number) * 0x10101 + 0xff000000
  const data = new Uint8ClampedArray(four.buffer)
  const found = await readBarcodes({ data, width, height, colorSpace: 'srgb' } as ImageData, {
    formats: ['QRCode', 'MicroQRCode'],
    tryHarder: true,
    tryRotate: true,
    tryInvert: true,
    tryDownscale: true,
    maxNumberOfSymbols: CODES_MAX,
  })
  return found.map(({ text }) => text.slice(0, TEXT_CHARS_MAX)).filter((text) => text !== '')
}

/** Characters that fill a cell or half of one. */
const BLOCKS = /[\u2580-\u259f\u25a0\u25a1\u25fc\u25fb\u2b1b\u2b1c]/g

/** The text draws a code of block characters: as many lines of them as the smallest one has. */
export function isDrawn(text: string): boolean {
  if (!/[\u2580-\u259f\u25a0\u25a1\u25fc\u25fb\u2b1b\u2b1c]/.test(text)) return false
  let lines = 0
  for (const line of text.split('\n', 5_000)) {
    lines = (line.match(BLOCKS)?.length ?? 0) >= 8 ? lines + 1 : 0
    // Half blocks draw two rows a line: 21 rows are 11 lines.
    if (lines >= 11) return true
  }
  return false
}

/** Coloured cells of tables that draw a code: the smallest one has 21 rows and columns. */
export const DRAWN_CELLS_MIN = 300
