/**
 * Headers of parts that stand where no header is to the one tree: in the text of another part, before
 * the first boundary, behind the last. A reader that takes the boundary, the empty line or the encoding
 * otherwise sees a part there.
 */

/** Octets that some skip at the begin of a line: blanks, NUL, other controls. */
const SKIPPED_MAX = 8

/** First octets of lines between `from` and `to` that begin with a Content field; at most `max`. */
export function hiddenHeaders(source: Buffer, from: number, to: number, max: number): number[] {
  const found: number[] = []
  // A dash is rare in text and in base64 there is none; the search for one octet is native.
  for (let at = source.indexOf(DASH, from); at !== -1 && at < to; ) {
    if (isContent(source, at) && at - 7 >= from) {
      const start = lineStart(source, at - 7, from)
      if (start !== -1 && isField(source, at + 1, to)) {
        found.push(at - 7)
        if (found.length >= max) return found
      }
    }
    at += 1
    while (source[at] === DASH) at += 1
    at = source.indexOf(DASH, at)
  }
  return found
}

const DASH = 45
const CONTENT = Buffer.from('content')

function isContent(source: Buffer, dash: number): boolean {
  if (((source[dash - 1] ?? 0) | 32) !== 116) return false
  for (let index = 0; index < CONTENT.length; index += 1) {
    if (((source[dash - CONTENT.length + index] ?? 0) | 32) !== CONTENT[index]) return false
  }
  return true
}

/** -1 when more than blanks and controls stands before it on its line. */
function lineStart(source: Buffer, at: number, from: number): number {
  for (let before = at - 1; before >= at - 1 - SKIPPED_MAX; before -= 1) {
    const byte = source[before]
    if (before < from || byte === 10 || byte === 13) return before + 1
    if (byte === undefined || byte > 32) return -1
  }
  return -1
}

const NAMES = /^(?:type|transfer-encoding|disposition)[^\r\n:]{0,20}:/i

function isField(source: Buffer, from: number, to: number): boolean {
  return NAMES.test(source.toString('latin1', from, Math.min(to, from + 40)))
}

/** Where the first line from `from` that begins with two dashes and more begins; `to` when none does. */
export function nextDelimiter(source: Buffer, from: number, to: number): number {
  for (let at = from; ; at += 3) {
    at = source.indexOf('\n--', at, 'latin1')
    if (at === -1 || at >= to) return to
    const byte = source[at + 3] ?? 0
    if (byte <= 32 || byte === DASH) continue
    return source[at - 1] === 13 ? at - 1 : at
  }
}
