/**
 * Files inside the content of a part that mail programs unpack by themselves: uuencode (POSIX uuencode),
 * yEnc 1.3, BinHex 4.0 (RFC 1741) and TNEF.
 */

import { looksLikeTnef, readTnef } from './tnef.ts'
import { decodeBase64 } from './transfer.ts'

export type EnclosedFile = {
  /** As they are written, decoded. */
  readonly names: readonly string[]
  readonly content: Buffer
}

export type Enclosure = {
  readonly files: readonly EnclosedFile[]
  /** Something is malformed, cut short or beyond a bound: readers may take it otherwise. */
  readonly broken: boolean
}

const NONE: Enclosure = { files: [], broken: false }
/** Of one content. */
const ENCLOSED_MAX = 50

/** `text`: read as text, so that files may stand between its lines. Never throws. */
export function enclosedFiles(content: Buffer, text: boolean): Enclosure {
  if (looksLikeTnef(content)) return readTnef(content)
  if (!text) return NONE
  const uu = content.indexOf(BEGIN)
  const binHex = content.indexOf(BINHEX)
  if (uu === -1 && binHex === -1) return NONE
  const files: EnclosedFile[] = []
  const state = { files, broken: false }
  if (uu !== -1) {
    unUu(content, uu, state)
    unYenc(content, state)
  }
  if (binHex !== -1) unBinHex(content, binHex, state)
  return files.length === 0 && !state.broken ? NONE : state
}

/** Of uuencode and of yEnc. */
const BEGIN = Buffer.from('begin')
const BINHEX = Buffer.from('BinHex')
const YBEGIN = Buffer.from('=ybegin ')
const YEND = Buffer.from('\n=yend')
const END = Buffer.from('\nend')

type State = { readonly files: EnclosedFile[]; broken: boolean }

function add(state: State, name: string, content: Buffer): void {
  if (hasRoom(state)) state.files.push({ names: name.trim() === '' ? [] : [name.trim()], content })
}

function hasRoom(state: State): boolean {
  state.broken ||= state.files.length >= ENCLOSED_MAX
  return state.files.length < ENCLOSED_MAX
}

/** End of the line that holds `at`: of its text, and of its line end. */
function lineAt(bytes: Buffer, at: number): { end: number; next: number } {
  const lf = bytes.indexOf(10, at)
  if (lf === -1) return { end: bytes.length, next: bytes.length }
  return { end: lf > at && bytes[lf - 1] === 13 ? lf - 1 : lf, next: lf + 1 }
}

function startsLine(bytes: Buffer, at: number): boolean {
  const before = bytes[at - 1]
  return at === 0 || before === 10 || before === 13
}

/** `begin 644 name`, lines, `end`; also `begin-base64`. Some readers want no mode, so none is asked for. */
function unUu(bytes: Buffer, first: number, state: State): void {
  for (let at = first; at !== -1; at = bytes.indexOf(BEGIN, at + 5)) {
    const after = bytes[at + 5]
    if (!startsLine(bytes, at) || (after !== 32 && after !== 45 && after !== 9)) continue
    const { end, next } = lineAt(bytes, at)
    const head = bytes.toString('latin1', at, Math.min(end, at + 1_000))
    const name = /^begin\S*[ \t]+(?:[0-7]{3,4}[ \t]+)?(.*)$/.exec(head)?.[1]
    if (name === undefined) continue
    if (head.startsWith('begin-base64')) {
      const stop = bytes.indexOf('====', next, 'latin1')
      const to = stop === -1 ? bytes.length : stop
      for (const content of decodeBase64(bytes, next, to).contents) add(state, name, content)
      at = to
      continue
    }
    if (!isUuLine(bytes, next, lineAt(bytes, next).end)) continue
    const body = unUuLines(bytes, next, state)
    add(state, name, body.content)
    at = body.end - 5
  }
}

/** The first octet says how many follow; blanks at the end may be gone. */
function isUuLine(bytes: Buffer, at: number, end: number): boolean {
  const count = ((bytes[at] ?? 0) - 32) & 63
  const digits = end - at - 1
  if (count === 0 || digits < 1 || digits > Math.ceil(count / 3) * 4 + 2) return false
  for (let index = at; index < end; index += 1) {
    const byte = bytes[index] ?? 0
    if (byte < 32 || byte > 96) return false
  }
  return digits >= Math.ceil((count * 4) / 3) || bytes[at] === 77 || digits < 60
}

function unUuLines(
  bytes: Buffer,
  start: number,
  state: State,
): { readonly content: Buffer; readonly end: number } {
  const stop = bytes.indexOf(END, start)
  const out = Buffer.allocUnsafe((stop === -1 ? bytes.length : stop) - start + 1)
  let to = 0
  let at = start
  let closed = false
  while (at < bytes.length) {
    const { end, next } = lineAt(bytes, at)
    const first = bytes[at] ?? 0
    if (end - at >= 3 && bytes.toString('latin1', at, at + 3) === 'end') {
      closed = true
      at = next
      break
    }
    // Between two pieces some put blank lines and words: they are not of the file.
    if (end > at && first !== 96 && first !== 32 && !isUuLine(bytes, at, end)) state.broken = true
    else if (end > at) to = unUuLine(bytes, at, end, out, to)
    at = next
  }
  if (!closed) state.broken = true
  return { content: out.subarray(0, to), end: at }
}

function unUuLine(bytes: Buffer, at: number, end: number, out: Buffer, from: number): number {
  const count = ((bytes[at] ?? 0) - 32) & 63
  const digit = (index: number): number => (index < end ? ((bytes[index] ?? 32) - 32) & 63 : 0)
  let to = from
  for (let index = at + 1; to < from + count; index += 4) {
    const [a, b, c, d] = [digit(index), digit(index + 1), digit(index + 2), digit(index + 3)]
    out[to] = (a << 2) | (b >> 4)
    if (to + 1 < from + count) out[to + 1] = ((b << 4) & 255) | (c >> 2)
    if (to + 2 < from + count) out[to + 2] = ((c << 6) & 255) | d
    to += 3
  }
  return from + count
}

function unYenc(bytes: Buffer, state: State): void {
  for (let at = bytes.indexOf(YBEGIN); at !== -1; at = bytes.indexOf(YBEGIN, at + 8)) {
    if (!startsLine(bytes, at)) continue
    if (!hasRoom(state)) return
    const { end, next } = lineAt(bytes, at)
    const name = / name=(.*)$/.exec(bytes.toString('latin1', at, Math.min(end, at + 1_000)))?.[1]
    const stop = bytes.indexOf(YEND, next - 1)
    if (stop === -1) state.broken = true
    const out = Buffer.allocUnsafe((stop === -1 ? bytes.length : stop) - next + 1)
    let to = 0
    for (let from = next; from < (stop === -1 ? bytes.length : stop); from += 1) {
      let byte = bytes[from] ?? 0
      if (byte === 13 || byte === 10) continue
      if (byte === 61) {
        if (bytes[from + 1] === 121 && startsLine(bytes, from)) {
          // `=ypart` and the like: a line of its own.
          from = lineAt(bytes, from).next - 1
          continue
        }
        from += 1
        byte = (bytes[from] ?? 0) - 64
      }
      out[to] = (byte - 42) & 255
      to += 1
    }
    add(state, name ?? '', out.subarray(0, to))
    if (stop !== -1) at = stop
  }
}

const HQX = '!"#$%&\'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr'
const HQX_DIGITS = Int8Array.from({ length: 256 }, (_, code) =>
  HQX.indexOf(String.fromCharCode(code)),
)
const COLON = 58

function unBinHex(bytes: Buffer, first: number, state: State): void {
  let at = first
  // The data stands between two colons, the first at the begin of a line.
  do at = bytes.indexOf(COLON, at + 1)
  while (at !== -1 && !startsLine(bytes, at))
  if (at === -1) return
  const stop = bytes.indexOf(COLON, at + 1)
  if (stop === -1) state.broken = true
  const plain = unHqx(bytes, at + 1, stop === -1 ? bytes.length : stop)
  const nameLength = plain[0] ?? 0
  const sizeAt = nameLength + 12
  if (nameLength === 0 || plain.length < sizeAt + 10) {
    state.broken = true
    return
  }
  const from = sizeAt + 10
  const size = plain.readUInt32BE(sizeAt)
  if (from + size > plain.length) state.broken = true
  add(state, plain.toString('latin1', 1, 1 + nameLength), plain.subarray(from, from + size))
  const resource = plain.subarray(from + size + 2, from + size + 2 + plain.readUInt32BE(sizeAt + 4))
  if (resource.length > 0) add(state, '', resource)
}

/** Six bits a digit, then runs: an octet, 0x90, how often it stands there. */
function unHqx(bytes: Buffer, start: number, end: number): Buffer {
  const packed = Buffer.allocUnsafe(end - start)
  let length = 0
  let bits = 0
  let held = 0
  for (let at = start; at < end; at += 1) {
    const digit = HQX_DIGITS[bytes[at] ?? 0] ?? -1
    if (digit === -1) continue
    held = ((held << 6) | digit) & 0xffff
    bits += 6
    if (bits < 8) continue
    bits -= 8
    packed[length] = (held >> bits) & 255
    length += 1
  }
  // Runs of 255 in a mail of one file each: at most 85 times its size, and no more than this.
  const out = Buffer.allocUnsafe(Math.min(length * 85 + 256, HQX_BYTES_MAX))
  let to = 0
  for (let at = 0; at < length && to < out.length; at += 1) {
    const byte = packed[at] ?? 0
    const times = byte === 0x90 ? (packed[at + 1] ?? 0) : 1
    if (byte === 0x90) at += 1
    if (byte === 0x90 && times > 0) {
      const end = Math.min(to + times - 1, out.length)
      out.fill(out[to - 1] ?? 0, to, end)
      to = end
    } else {
      out[to] = byte
      to += 1
    }
  }
  return out.subarray(0, to)
}

const HQX_BYTES_MAX = 32 * 1024 * 1024
