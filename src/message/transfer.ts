/** Content-Transfer-Encoding: base64 and quoted-printable, decoded leniently (RFC 2045 section 6). */

/**
 * Decodes base64 in `source` from `start` to `end`. Line ends and foreign characters are
 * skipped; data after padding is read on, as mail readers do. Never throws.
 */
export function decodeBase64(source: Buffer, start: number, end: number): Buffer {
  const padding = source.subarray(start, end).indexOf(61)
  if (padding !== -1 && !isBlankFrom(source, start + padding, end))
    return decodePieces(source, start, end)
  if (end - start <= STEP_BYTES) return Buffer.from(source.toString('latin1', start, end), 'base64')
  return (
    decodeSteps(source, start, end) ?? Buffer.from(source.toString('latin1', start, end), 'base64')
  )
}

/** Text at a time: the decoder is native and quick, but takes a string, which is a copy. */
const STEP_BYTES = 1024 * 1024

/** Line by line in large steps; null where a step does not end with a whole group of four. */
function decodeSteps(source: Buffer, start: number, end: number): Buffer | null {
  const out = Buffer.allocUnsafeSlow(Math.ceil(((end - start) * 3) / 4))
  let length = 0
  for (let at = start; at < end; ) {
    const last = end - at <= STEP_BYTES
    const lineEnd = last ? end : source.lastIndexOf(10, at + STEP_BYTES) + 1
    if (lineEnd <= at) return null
    if (!last && digits(source, at, lineEnd) % 4 !== 0) return null
    length += out.write(source.toString('latin1', at, lineEnd), length, 'base64')
    at = lineEnd
  }
  return out.subarray(0, length)
}

const IS_DIGIT = Uint8Array.from({ length: 256 }, (_, code) =>
  /[A-Za-z0-9+/_-]/.test(String.fromCharCode(code)) ? 1 : 0,
)

function digits(source: Buffer, start: number, end: number): number {
  let count = 0
  for (let at = start; at < end; at += 1) count += IS_DIGIT[source[at] ?? 0] ?? 0
  return count
}

/** The native decoder stops at padding: each stretch between two is decoded by itself. */
function decodePieces(source: Buffer, start: number, end: number): Buffer {
  const pieces: Buffer[] = []
  for (const piece of source.toString('latin1', start, end).split(/=+/, PIECES_MAX)) {
    pieces.push(Buffer.from(piece, 'base64'))
  }
  return Buffer.concat(pieces)
}

/** Pieces between paddings that are decoded: a mail of `=` alone must not make millions. */
const PIECES_MAX = 100_000

/** Only padding, blanks and line ends are left. */
function isBlankFrom(source: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) {
    const byte = source[at]
    if (byte !== 61 && byte !== 13 && byte !== 10 && byte !== 32 && byte !== 9) return false
  }
  return true
}

/** Decodes quoted-printable in `source` from `start` to `end`; what is malformed stays. */
export function decodeQuotedPrintable(source: Buffer, start: number, end: number): Buffer {
  const body = source.subarray(start, end)
  const first = body.indexOf(61)
  if (first === -1) return body
  const out = Buffer.allocUnsafe(body.length)
  out.set(body.subarray(0, first))
  let to = first
  let at = first
  while (at < body.length) {
    const byte = body[at] ?? 0
    if (byte !== 61) {
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
      at = next
      continue
    }
    out[to] = byte
    to += 1
    at += 1
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
