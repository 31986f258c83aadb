/**
 * Content-Transfer-Encoding: base64 and quoted-printable (RFC 2045 section 6). Sound content has one
 * reading. Where it is malformed decoders disagree on what to skip, and each reading is given.
 */

/** Every content that some reader would take; the first is what most take. */
export type Decoded = {
  readonly contents: readonly Buffer[]
  /** The encoding is as the standard has it, or so that all decoders agree. */
  readonly sound: boolean
}

/** Text at a time: the decoder is native and quick, but takes a string, which is a copy. */
const STEP_BYTES = 1024 * 1024
/** Those copies are garbage that the engine collects late by itself. */
const COLLECT_STEPS = 8
/** Encoded octets that are read in more than one way: above it one reading, and it is not sound. */
const READINGS_BYTES_MAX = 4 * 1024 * 1024

/** Base64 in `source` from `start` to `end`. Never throws. */
export function decodeBase64(source: Buffer, start: number, end: number): Decoded {
  const sound = soundBase64(source, start, end)
  if (sound !== null && isEven(source, start, end)) return { contents: [sound], sound: true }
  // What most do: foreign characters are skipped, and padding begins anew.
  const contents = [sound ?? decodeDigits(source, start, end, DIGITS, PAD)]
  if (end - start <= READINGS_BYTES_MAX) {
    if (sound === null) keepOther(contents, decodeDigits(source, start, end, DIGITS, NEVER))
    // Each line by itself: what is left of a group of four at its end does not go on.
    keepOther(contents, decodeDigits(source, start, end, DIGITS, LF))
    if (holds(source, 45, start, end) || holds(source, 95, start, end)) {
      keepOther(contents, decodeDigits(source, start, end, URL_DIGITS, PAD))
    }
  }
  return { contents, sound: sound !== null }
}

const PAD = 61
const LF = 10
const NEVER = -1

/** Null where there is more than digits, line ends, blanks, and padding at the end. */
function soundBase64(source: Buffer, start: number, end: number): Buffer | null {
  const out = Buffer.allocUnsafeSlow(Math.ceil(((end - start) * 3) / 4))
  let length = 0
  let steps = 0
  try {
    for (let at = start; at < end; ) {
      const last = end - at <= STEP_BYTES
      const stop = last ? end : at + STEP_BYTES
      if (!last && holds(source, PAD, at, stop)) return null
      const { read, written } = fromBase64(
        out.subarray(length),
        source.toString('latin1', at, stop),
        last ? 'loose' : 'stop-before-partial',
      )
      length += written
      if (last) break
      if (written === 0) return null
      at += read
      steps += 1
      if (steps % COLLECT_STEPS === 0) Bun.gc(true)
    }
  } catch {
    return null
  }
  return out.subarray(0, length)
}

/** All lines but the last are alike and hold whole groups of four: who reads line by line reads the same. */
function isEven(source: Buffer, start: number, end: number): boolean {
  const first = source.indexOf(10, start)
  if (first === -1 || first >= end) return true
  const digits = source[first - 1] === 13 ? first - 1 - start : first - start
  if (digits % 4 !== 0 || digits === 0) return false
  const step = first + 1 - start
  let at = first
  while (at + step < end && source[at + step] === 10) at += step
  const lf = source.indexOf(10, at + 1)
  const rest = lf === -1 || lf > end ? end : lf
  // Blank lines may follow the last one.
  for (let index = rest; index < end; index += 1) if ((source[index] ?? 0) > 32) return false
  return rest - at <= step
}

/** The types of the runtime still lack the options of ECMAScript. Throws on a foreign character. */
function fromBase64(
  target: Buffer,
  text: string,
  lastChunkHandling: 'loose' | 'stop-before-partial',
): { readonly read: number; readonly written: number } {
  const options = { lastChunkHandling } as unknown as number
  return target.setFromBase64(text, options)
}

function holds(source: Buffer, byte: number, start: number, end: number): boolean {
  const at = source.indexOf(byte, start)
  return at !== -1 && at < end
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
/** RFC 4648 section 4; -1: no digit. */
const DIGITS = Int8Array.from({ length: 256 }, (_, code) =>
  ALPHABET.indexOf(String.fromCharCode(code)),
)
/** RFC 4648 section 5: `-` and `_` are digits to some and foreign to others. */
const URL_DIGITS = DIGITS.map((digit, code) => (code === 45 ? 62 : code === 95 ? 63 : digit))

/** Skips what is no digit; at the octet `anew` what is left of a group is dropped. */
function decodeDigits(
  source: Buffer,
  start: number,
  end: number,
  digits: Int8Array,
  anew: number,
): Buffer {
  const out = Buffer.allocUnsafeSlow(Math.ceil(((end - start) * 3) / 4))
  let length = 0
  let held = 0
  let bits = 0
  for (let at = start; at < end; at += 1) {
    const byte = source[at] ?? 0
    const digit = digits[byte] ?? -1
    if (digit >= 0) {
      held = ((held << 6) | digit) & 0xffff
      bits += 6
      if (bits >= 8) {
        bits -= 8
        out[length] = (held >> bits) & 255
        length += 1
      }
    } else if (byte === anew) bits = 0
  }
  return out.subarray(0, length)
}

function keepOther(contents: Buffer[], other: Buffer): void {
  if (contents.every((content) => !content.equals(other))) contents.push(other)
}

/**
 * Quoted-printable in `source` from `start` to `end`. `file`: nobody reads it as text, so each
 * octet counts. Never throws.
 */
export function decodeQuotedPrintable(
  source: Buffer,
  start: number,
  end: number,
  file: boolean,
): Decoded {
  const body = source.subarray(start, end)
  const first = body.indexOf(PAD)
  if (first === -1 && !file) return { contents: [body], sound: true }
  const { content, stray } = decodeStrays(body, first === -1 ? body.length : first)
  const contents = [content]
  if (!stray && (!file || isClean(body))) return { contents, sound: true }
  if (body.length > READINGS_BYTES_MAX) return { contents, sound: false }
  // What some drop with a stray `=`: nothing, one octet, two. Some keep no line end at all.
  keepOther(contents, mend(body, 0, true))
  for (const drop of [0, 1, 2]) keepOther(contents, mend(body, drop, false))
  return { contents, sound: !stray }
}

/** What is malformed stays as it is: most readers do so. */
function decodeStrays(body: Buffer, first: number): { content: Buffer; stray: boolean } {
  if (first === body.length) return { content: body, stray: false }
  const out = Buffer.allocUnsafe(body.length)
  out.set(body.subarray(0, first))
  let stray = false
  let to = first
  let at = first
  while (at < body.length) {
    const byte = body[at] ?? 0
    if (byte !== PAD) {
      out[to] = byte
      to += 1
      at += 1
      continue
    }
    const high = hexDigit(body[at + 1])
    const low = hexDigit(body[at + 2])
    if (high !== -1 && low !== -1) {
      out[to] = high * 16 + low
      to += 1
      at += 3
      continue
    }
    const next = afterSoftBreak(body, at + 1)
    if (next !== -1) {
      // A CR that no LF follows ends a line for some.
      if (body[next - 1] === 13) stray = true
      at = next
      continue
    }
    stray = true
    out[to] = byte
    to += 1
    at += 1
  }
  return { content: out.subarray(0, to), stray }
}

/** RFC 2045 section 6.7: printable, no blank before a line end or soft break, no CR or LF alone. */
function isClean(body: Buffer): boolean {
  for (let at = 0; at < body.length; at += 1) {
    const byte = body[at] ?? 0
    if (byte > 126 || (byte < 32 && byte !== 9 && byte !== 13 && byte !== 10)) return false
    if ((byte === 13) !== (body[at + 1] === 10)) return false
    if (byte !== 32 && byte !== 9) continue
    const next = body[at + 1]
    if (next === 13 || next === 10 || (next === PAD && isBreak(body[at + 2]))) return false
  }
  return true
}

function isBreak(byte: number | undefined): boolean {
  return byte === 13 || byte === 10 || byte === undefined
}

/** Read by one who drops what does not belong: `drop` octets behind a stray `=`, blanks at line ends, octets that must not stand there. */
function mend(body: Buffer, drop: number, keepLines: boolean): Buffer {
  const out = Buffer.allocUnsafe(body.length)
  let to = 0
  const trim = (): void => {
    while (to > 0 && (out[to - 1] === 32 || out[to - 1] === 9)) to -= 1
  }
  for (let at = 0; at < body.length; at += 1) {
    const byte = body[at] ?? 0
    if (byte === PAD) {
      const high = hexDigit(body[at + 1])
      const low = hexDigit(body[at + 2])
      if (high !== -1 && low !== -1) {
        out[to] = high * 16 + low
        to += 1
        at += 2
        continue
      }
      const next = afterSoftBreak(body, at + 1)
      if (next === -1) {
        at += drop
        continue
      }
      trim()
      at = next - 1
      while (body[at + 1] === 13 || body[at + 1] === 10) at += 1
    } else if (byte === 13 || byte === 10) {
      trim()
      if (!keepLines) continue
      out[to] = byte
      to += 1
    } else if (byte === 9 || (byte >= 32 && byte <= 126)) {
      out[to] = byte
      to += 1
    }
  }
  return out.subarray(0, to)
}

/** Index after the line end of a soft break, blanks before it allowed; -1 when it is none. */
function afterSoftBreak(body: Buffer, from: number): number {
  let at = from
  // Blanks are bounded, or `=` and blanks without end would be quadratic.
  while (at < from + 1_000 && (body[at] === 32 || body[at] === 9)) at += 1
  if (at >= body.length) return body.length
  if (body[at] === 13 && body[at + 1] === 10) return at + 2
  return body[at] === 10 || body[at] === 13 ? at + 1 : -1
}

function hexDigit(byte: number | undefined): number {
  if (byte === undefined) return -1
  if (byte >= 48 && byte <= 57) return byte - 48
  if (byte >= 65 && byte <= 70) return byte - 55
  if (byte >= 97 && byte <= 102) return byte - 87
  return -1
}
