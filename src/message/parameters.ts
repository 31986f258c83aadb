/**
 * Parameters of a header field, `text/plain; charset=x; name*0="a"`, as strict and as lenient readers
 * take them (RFC 2045 section 5.1, RFC 2231).
 */
import { decodeCharset, decodeText, octetsToText } from './header.ts'

/** A value such as `text/plain; charset=x; name*0="a"`, read leniently. */
export type Parametered = {
  /** What stands before the first semicolon, lower case, comments removed. */
  readonly value: string
  /** Names in lower case, in order, doubles kept; values still in octets, quotes removed. */
  readonly params: readonly { readonly name: string; readonly value: string }[]
}

/** Parameters that are read of one field; further ones are dropped. */
const PARAMS_MAX = 200

/** Never throws; one pass over the text. */
export function parseParametered(text: string): Parametered {
  const pieces = splitOutside(text)
  const params: { name: string; value: string }[] = []
  for (let index = 1; index < pieces.length; index += 1) {
    const piece = pieces[index] ?? ''
    const equals = piece.indexOf('=')
    if (equals === -1) continue
    const name = piece.slice(0, equals).trim().toLowerCase()
    if (name !== '') params.push({ name, value: piece.slice(equals + 1).trim() })
  }
  return { value: (pieces[0] ?? '').trim().toLowerCase(), params }
}

/** Pieces between semicolons that are outside quotes and comments; both are taken off. */
function splitOutside(text: string): string[] {
  if (!/["(\\]/.test(text)) return text.split(';', PARAMS_MAX)
  const pieces: string[] = []
  let piece = ''
  let quoted = false
  let depth = 0
  /** What stands from here on is of the piece, and not yet added. */
  let from = 0
  for (let at = 0; at < text.length && pieces.length < PARAMS_MAX; at += 1) {
    const code = text.charCodeAt(at)
    const escaped = code === BACKSLASH && (quoted || depth > 0)
    const mark = quoted
      ? code === QUOTE
      : code === OPEN ||
        (code === CLOSE && depth > 0) ||
        (depth === 0 && (code === QUOTE || code === SEMICOLON))
    if (!escaped && !mark) continue
    if (depth === 0) piece += text.slice(from, at)
    from = at + 1
    // The next character counts as it is.
    if (escaped) at += 1
    else if (quoted) quoted = false
    else if (code === OPEN) depth += 1
    else if (code === CLOSE) depth -= 1
    else if (code === QUOTE) quoted = true
    else {
      pieces.push(piece)
      piece = ''
    }
  }
  pieces.push(depth === 0 ? piece + text.slice(from) : piece)
  return pieces
}

const QUOTE = 34
const OPEN = 40
const CLOSE = 41
const SEMICOLON = 59
const BACKSLASH = 92

/**
 * Every value that some reader would take for the parameter `name`: the plain one, the one of
 * RFC 2231 (with charset and continuations), each also with encoded words decoded.
 */
export function paramReadings({ params }: Parametered, name: string): readonly string[] {
  const readings = new Set<string>()
  const pieces: Piece[] = []
  for (const param of params) {
    if (param.name === name) {
      readings.add(octetsToText(param.value))
      if (/[\xc0\xc1]/.test(param.value)) readings.add(octetsToText(shortened(param.value)))
      if (param.value.includes('=?')) readings.add(decodeText(param.value))
      continue
    }
    if (param.name[name.length] !== '*' || !param.name.startsWith(name)) continue
    const rest = /^(?:(\d{1,3}))?(\*)?$/.exec(param.name.slice(name.length + 1))
    if (rest === null) continue
    const extended = rest[2] === '*' || rest[1] === undefined
    pieces.push({
      order: Number(rest[1] ?? 0),
      ...(extended ? unpercent(param.value) : { octets: param.value, charset: null }),
    })
  }
  if (pieces.length === 0) return [...readings]
  // As they stand, in the order of their numbers, and up to the first number that lacks or comes twice.
  const sorted = pieces.toSorted((a, b) => a.order - b.order)
  const gap = sorted.findIndex(({ order }, index) => order !== index)
  addJoined(sorted, readings)
  if (gap > 0) addJoined(sorted.slice(0, gap), readings)
  if (gap > 0 || sorted.some((piece, index) => piece !== pieces[index])) addJoined(pieces, readings)
  return [...readings]
}

/** One parameter of RFC 2231 section 3. */
type Piece = { readonly order: number; readonly octets: string; readonly charset: string | null }

function addJoined(pieces: readonly Piece[], readings: Set<string>): void {
  const charset = pieces.find((piece) => piece.charset !== null)?.charset ?? null
  const octets = pieces.map((piece) => piece.octets).join('')
  const text =
    charset === null ? octetsToText(octets) : decodeCharset(Buffer.from(octets, 'latin1'), charset)
  readings.add(text)
  if (text.includes('=?')) readings.add(decodeText(octets))
}

const NAMES_MAX = 10
const NAME_CHARS_MAX = 4_096
const NO_NAMES: readonly string[] = []

/**
 * Every file name that some reader would show, out of the values of Content-Disposition and then
 * of Content-Type: at most 10 of at most 4,096 characters, decoded, not cleaned.
 */
export function fileNames(
  dispositions: readonly string[],
  types: readonly string[],
): readonly string[] {
  const names = new Set<string>()
  const take = (value: string, first: string, second: string): void => {
    if (!NAMED.test(value)) return
    const readings = [parseParametered(value)]
    // No word before the first parameter, or no semicolon behind the word.
    const bare = /^[^;="]*?((?:file)?name[*\d]*\s*=.*)$/is.exec(value)?.[1]
    if (bare !== undefined) readings.push(parseParametered(`;${bare}`))
    // A backslash is part of a path to some, even in quotes.
    if (value.includes('\\')) readings.push(parseParametered(value.replaceAll('\\', '\\\\')))
    for (const reading of readings) {
      for (const name of paramReadings(reading, first)) addName(name, names)
      for (const name of paramReadings(reading, second)) addName(name, names)
    }
  }
  for (const value of dispositions) take(value, 'filename', 'name')
  for (const value of types) take(value, 'name', 'filename')
  if (names.size === 0) return NO_NAMES
  names.delete('')
  return names.size <= NAMES_MAX ? [...names] : [...names].slice(0, NAMES_MAX)
}

/** Most fields name no file. */
const NAMED = /name/i

function addName(written: string, names: Set<string>): void {
  const name = written.slice(-NAME_CHARS_MAX)
  names.add(name)
  // What ends a name early for some: a NUL or line end, a quote that never closes.
  const end = /[\x00-\x1f;"]/.exec(name)
  if (end !== null && end.index > 0) names.add(name.slice(0, end.index).trim())
}

/** `charset'language'percent-encoded` of RFC 2231 section 4, the first two optional. */
function unpercent(text: string): { octets: string; charset: string | null } {
  const match = /^([^']{0,80})'[^']{0,80}'/.exec(text)
  const octets = (match === null ? text : text.slice(match[0].length)).replace(
    /%([0-9a-f]{2})/gi,
    (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return { octets: shortened(octets), charset: match?.[1] ? match[1].toLowerCase() : null }
}

/** ASCII that is written with two octets (forbidden by RFC 3629 section 3, read by some) is ASCII. */
function shortened(octets: string): string {
  return octets.replace(/[\xc0\xc1][\x80-\xbf]/g, ([lead, trail]) =>
    String.fromCharCode(
      (((lead?.charCodeAt(0) ?? 0) & 1) << 6) | ((trail?.charCodeAt(0) ?? 0) & 63),
    ),
  )
}
