/**
 * Codes that are drawn instead of shown: of characters in lines, of coloured cells of a table, of
 * pictures side by side. Each drawing becomes a picture for the reader of codes (qr.ts).
 */

import { decodeHTMLAttribute } from 'entities'

/** Brightness by pixel, 0 to 255, row by row. */
export type Pixels = { readonly width: number; readonly height: number; readonly gray: Uint8Array }

/** Rows and columns of the smallest code; two rows stand in a line of half blocks. */
const MODULES_MIN = 21
const LINES_MIN = 11
/** A line of fewer shows no row of a code, even where its end was trimmed. */
const LETTERS_MIN = 8
/** Columns and rows of the largest drawing; the largest code has 177. */
const CELLS_MAX = 250
/** Drawings of one text. */
const DRAWINGS_MAX = 2
/** A reader wants four modules of nothing around a code. */
const QUIET_CELLS = 8
const EDGE_MAX = 1_000
const DOT_MAX = 4
const DARK = 0
const LIGHT = 255

/** Quarters of a character that are filled, by its code: 1 and 2 above, 4 and 8 below. */
const QUARTERS: ReadonlyMap<number, number> = new Map([
  ...quarters(0, ' \u00a0\u2003\u2007\u3000\u2591\u2581\u2582\u2583\u25a1\u25fb\u25fd\u2b1c'),
  ...quarters(15, '\u2585\u2586\u2587\u2588\u2589\u258a\u258b\u2592\u2593\u25a0\u25fc\u25fe\u2b1b'),
  ...quarters(3, '\u2580'),
  ...quarters(12, '\u2584'),
  ...quarters(5, '\u258c'),
  ...quarters(10, '\u2590'),
  ...[4, 8, 1, 13, 9, 7, 11, 2, 6, 14].map((mask, index) => [0x2596 + index, mask] as const),
])

function quarters(mask: number, characters: string): readonly (readonly [number, number])[] {
  return [...characters].map((character) => [character.charCodeAt(0), mask] as const)
}

/** Characters that fill a cell or a part of one. */
const BLOCK = /[\u2580-\u259f\u25a0\u25a1\u25fb-\u25fe\u2b1b\u2b1c]/

/** A drawing in lines: of block characters, or of two letters. */
export type Drawing = { readonly lines: readonly string[]; readonly letters: Letters }

/** At most two different ones that are no block characters. */
type Letters = readonly number[]

/** Drawings among the lines of `text`, at most two. One pass, which leaves most lines at their third letter. */
export function drawingsIn(text: string): readonly Drawing[] {
  const drawings: Drawing[] = []
  let lines: string[] = []
  let letters: Letters = []
  const close = (): void => {
    const least = lines.some((line) => BLOCK.test(line)) ? LINES_MIN : MODULES_MIN
    if (lines.length >= least && !lines.every(isOneLetter)) drawings.push({ lines, letters })
    lines = []
    letters = []
  }
  for (let at = 0; at <= text.length && drawings.length < DRAWINGS_MAX; ) {
    const end = text.indexOf('\n', at)
    const stop = end === -1 ? text.length : end
    const wide = stop - at >= LETTERS_MIN && stop - at <= CELLS_MAX + 2
    const own = wide ? lettersIn(text, at, stop) : null
    const both = own === null ? null : joinLetters(letters, own)
    if (both === null || lines.length >= CELLS_MAX) close()
    if (own !== null) {
      lines.push(text.slice(at, stop).trimEnd())
      letters = both ?? own
    }
    at = stop + 1
  }
  close()
  return drawings
}

/** No row of a code has only dark or only light cells. */
function isOneLetter(line: string): boolean {
  const first = line.charCodeAt(0)
  for (let at = 1; at < line.length; at += 1) if (line.charCodeAt(at) !== first) return false
  return true
}

/** The letters from `at` to `stop` that are no block characters; null: more than two. */
function lettersIn(text: string, at: number, stop: number): Letters | null {
  let letters: Letters = []
  let before = -1
  for (let index = at; index < stop; index += 1) {
    const code = text.charCodeAt(index)
    // Most of a drawing is runs of one letter.
    if (code === before) continue
    before = code
    if (code === 13 || QUARTERS.has(code) || letters.includes(code)) continue
    if (letters.length === 2) return null
    letters = [...letters, code]
  }
  return letters
}

/** Null: more than two. */
function joinLetters(known: Letters, own: Letters): Letters | null {
  const all = [...known, ...own.filter((letter) => !known.includes(letter))]
  return all.length > 2 ? null : all
}

/**
 * The drawing as a picture of square letters. The reader of codes forgives it where they are twice
 * as high as wide, and where the other of two letters is the dark one.
 */
export function rendered({ lines, letters: [dark] }: Drawing): Pixels {
  const rows = lines.flatMap((line) => {
    const marks = Array.from({ length: line.length }, (_, index) => {
      const code = line.charCodeAt(index)
      return code === dark ? 15 : (QUARTERS.get(code) ?? 0)
    })
    return [
      marks.flatMap((mark) => [bright(mark & 1), bright(mark & 2)]),
      marks.flatMap((mark) => [bright(mark & 4), bright(mark & 8)]),
    ]
  })
  return paint(rows)
}

function bright(mark: number): number {
  return mark === 0 ? LIGHT : DARK
}

/** Drawings of table cells: rows of brightness of which each has enough cells, at most two. */
export function picturesOfCells(rows: readonly (readonly number[])[]): readonly Pixels[] {
  const pictures: Pixels[] = []
  let drawn: (readonly number[])[] = []
  for (const row of [...rows, []]) {
    if (row.length >= MODULES_MIN && row.length <= CELLS_MAX && drawn.length < CELLS_MAX) {
      drawn.push(row)
      continue
    }
    if (drawn.length >= MODULES_MIN && pictures.length < DRAWINGS_MAX) pictures.push(paint(drawn))
    drawn = []
  }
  return pictures
}

/** Each value becomes a square, with nothing around them all. */
function paint(rows: readonly (readonly number[])[]): Pixels {
  const columns = Math.max(...rows.map((row) => row.length)) + 2 * QUIET_CELLS
  const lines = rows.length + 2 * QUIET_CELLS
  const dot = Math.max(1, Math.min(DOT_MAX, Math.floor(EDGE_MAX / Math.max(columns, lines))))
  const width = columns * dot
  const height = lines * dot
  const gray = new Uint8Array(width * height).fill(LIGHT)
  for (const [index, row] of rows.entries()) {
    const top = (index + QUIET_CELLS) * dot
    for (const [column, value] of row.entries()) {
      const from = top * width + (column + QUIET_CELLS) * dot
      gray.fill(value, from, from + dot)
    }
    for (let y = 1; y < dot; y += 1)
      gray.copyWithin((top + y) * width, top * width, (top + 1) * width)
  }
  return { width, height, gray }
}

/** Pieces of one picture, as a table shows them: side by side, below each other, in rows of rows. */
export function* joined(pieces: readonly Pixels[]): Generator<Pixels> {
  const [first] = pieces
  if (first === undefined || pieces.length < 2) return
  const high = pieces.every(({ height }) => height === first.height)
  const wide = pieces.every(({ width }) => width === first.width)
  for (let rows = 1; rows <= pieces.length; rows += 1) {
    const columns = pieces.length / rows
    if (!Number.isInteger(columns) || (columns > 1 && !high) || (rows > 1 && !wide)) continue
    const lines = Array.from({ length: rows }, (_, row) =>
      beside(pieces.slice(row * columns, (row + 1) * columns)),
    )
    const width = lines[0]?.width ?? 0
    const height = lines.reduce((sum, line) => sum + line.height, 0)
    if (Math.max(width, height) > 2 * EDGE_MAX) continue
    yield { width, height, gray: Buffer.concat(lines.map(({ gray }) => gray)) }
  }
}

function beside(pieces: readonly Pixels[]): Pixels {
  const width = pieces.reduce((sum, piece) => sum + piece.width, 0)
  const height = pieces[0]?.height ?? 0
  const gray = new Uint8Array(width * height)
  let left = 0
  for (const piece of pieces) {
    for (let y = 0; y < height; y += 1)
      gray.set(piece.gray.subarray(y * piece.width, (y + 1) * piece.width), y * width + left)
    left += piece.width
  }
  return { width, height, gray }
}

/** Block characters as markup may write them. */
const ENTITY = /&#(?:9[67]\d\d|x25[89af]|1103[56]|x2b1[bc])|&(?:block|[ul]hblk);/i
const BLANKS = ['&nbsp;'.repeat(6), '\u00a0'.repeat(6)]

/** Its text keeps its blanks, or holds block characters. One question at a time: each is a quick search, all in one a slow one. */
function mayDraw(source: string): boolean {
  return (
    BLOCK.test(source) ||
    /<pre\b/i.test(source) ||
    BLANKS.some((blanks) => source.includes(blanks)) ||
    ENTITY.test(source)
  )
}

/** Elements that end a line. */
const LINE = /^\/?(?:br|p|div|tr|li|pre)(?![a-z0-9])/i

/** Lines of markup as a reader sees them, blanks kept; empty where it draws nothing. */
export function linesOfMarkup(source: string): string {
  if (!mayDraw(source)) return ''
  const [before = '', ...pieces] = source.split('<')
  const shown = pieces.map((piece) => {
    const text = piece.slice(piece.indexOf('>') + 1)
    return LINE.test(piece) ? `\n${text}` : text
  })
  // An element ends where the next begins, and the source may have a line end there too.
  return decodeHTMLAttribute([before, ...shown].join('').replace(/[\r\n]+/g, '\n'))
}
