/** Header fields: read from bytes without changing them, and made readable (RFC 5322 section 2.2, RFC 2047). */

/** One field. Strings hold one character an octet (Latin-1), so that no octet is lost. */
export type Field = {
  /** Lower case, without the blanks that some put before the colon. */
  readonly name: string
  /** Unfolded: CRLF of folds removed, blanks around the value trimmed. */
  readonly value: string
}

/** What two readers may see differently. Each is a fact about the bytes, not a judgement. */
export type HeaderFlaws = {
  /** Names that stood before blanks and a colon (`From :`), lower case. */
  readonly blankBeforeColon: readonly string[]
  /** Lines that are neither a field, nor a fold, nor the mbox line `From `. */
  readonly junkLines: number
  /** Where the first of them begins: to some the body does. -1: there is none. */
  readonly firstJunk: number
  /** Names that stand in a fold as if it were a field of its own, lower case: `From` and the like. */
  readonly folded: readonly string[]
  /** A Content field in a fold or a junk line, or with foreign characters in its name. */
  readonly oddContent: boolean
  /** Octets of the longest line without its line end. */
  readonly longestLine: number
  readonly nul: boolean
  /** An octet above 127. */
  readonly eightBit: boolean
  /** A CR that no LF follows. */
  readonly bareCr: boolean
}

export type Header = {
  readonly fields: readonly Field[]
  /** First octet after the empty line; the end of the range when there is none. */
  readonly bodyStart: number
  /** Octets of all header lines. */
  readonly sizeBytes: number
  /** The header went on past the bound and was cut there. */
  readonly cut: boolean
  readonly flaws: HeaderFlaws
}

/** Values of all fields called `name` (lower case), in order. */
export function fieldValues(header: Header, name: string): readonly string[] {
  const values: string[] = []
  for (const field of header.fields) if (field.name === name) values.push(field.value)
  return values
}

/** Value of the first field called `name` (lower case), or null. */
export function fieldValue(header: Header, name: string): string | null {
  for (const field of header.fields) if (field.name === name) return field.value
  return null
}

/**
 * Reads the header that begins at `start`. Lines end with LF, with or without a CR before it.
 * At most `bytesMax` octets are read. Never throws.
 */
export function readHeader(bytes: Buffer, start: number, end: number, bytesMax: number): Header {
  const limit = Math.min(end, start + bytesMax)
  const block = bytes.subarray(start, limit)
  const { length, bodyStart } = headerEnd(block)
  const text = block.toString('latin1', 0, length)
  const fields: Field[] = []
  const blankBeforeColon: string[] = []
  const folded: string[] = []
  let junkLines = 0
  let firstJunk = -1
  let oddContent = false
  let longestLine = 0
  let at = 0
  let name: string | null = null
  let value = ''
  while (at < text.length) {
    let next = text.indexOf('\n', at)
    if (next === -1) next = text.length
    const lineEnd = next > at && text.charCodeAt(next - 1) === 13 ? next - 1 : next
    if (lineEnd - at > longestLine) longestLine = lineEnd - at
    const first = text.charCodeAt(at)
    if ((first === 32 || first === 9) && name !== null) {
      value += text.slice(at, lineEnd)
      const hidden = fieldInFold(text, at, lineEnd)
      // Signatures list the names of fields, and fold the list.
      if (hidden !== null && !name.endsWith('signature')) folded.push(hidden)
    } else {
      if (name !== null) fields.push({ name, value: value.trim() })
      name = null
      const colon = text.indexOf(':', at)
      if (colon === -1 || colon > lineEnd || !isFieldName(text, at, colon)) {
        // `From a@b Mon…` of mbox files, first line only, is no field and no flaw.
        if (!(at === 0 && /^>?From /.test(text.slice(0, 6)))) {
          if (firstJunk === -1) firstJunk = start + at
          junkLines += 1
          oddContent ||= /^[^a-z]{0,8}content-/i.test(text.slice(at, Math.min(lineEnd, at + 16)))
        }
      } else {
        const written = text.slice(at, colon)
        const bare = trimBlanks(written)
        if (bare.length !== written.length) blankBeforeColon.push(bare.toLowerCase())
        name = bare.toLowerCase()
        oddContent ||= name.includes('content-') && ODD_CONTENT.test(name)
        value = text.slice(colon + 1, lineEnd)
      }
    }
    at = next + 1
  }
  if (name !== null) fields.push({ name, value: value.trim() })
  return {
    fields,
    bodyStart: bodyStart === -1 ? limit : start + bodyStart,
    sizeBytes: length,
    cut: bodyStart === -1 && limit < end,
    flaws: {
      blankBeforeColon,
      junkLines,
      firstJunk,
      folded,
      oddContent: oddContent || folded.some((hidden) => hidden.startsWith('content-')),
      longestLine,
      nul: text.includes('\0'),
      eightBit: /[^\x00-\x7f]/.test(text),
      bareCr: /\r(?!\n)/.test(text),
    },
  }
}

/** A Content field with foreign characters in or before its name. */
const ODD_CONTENT = /(?:^|[^a-z0-9-])content-.*[^a-z0-9-]|[^a-z0-9-]content-/

/** Name of the field that the fold from `at` would be if its blanks were not there; null: none that matters. */
function fieldInFold(text: string, at: number, lineEnd: number): string | null {
  let from = at
  while (from < lineEnd && isBlank(text.charCodeAt(from))) from += 1
  const first = text.charCodeAt(from) | 32
  // `c`, `f`, `s`: most folds end here.
  if (first !== 99 && first !== 102 && first !== 115) return null
  const match = /^(content-[a-z-]+|from|sender)[ \t\0]*:/i.exec(text.slice(from, from + 60))
  return match?.[1]?.toLowerCase() ?? null
}

/** Length of the header lines and where the body begins; -1 when no empty line is there. */
function headerEnd(block: Buffer): { length: number; bodyStart: number } {
  if (block[0] === 10) return { length: 0, bodyStart: 1 }
  if (block[0] === 13 && block[1] === 10) return { length: 0, bodyStart: 2 }
  const crlf = block.indexOf('\n\r\n', 0, 'latin1')
  // A search for the short form alone would run over the whole body of a mail that has none.
  const lf = (crlf === -1 ? block : block.subarray(0, crlf)).indexOf('\n\n', 0, 'latin1')
  if (lf !== -1) return { length: lf + 1, bodyStart: lf + 2 }
  if (crlf !== -1) return { length: crlf + 1, bodyStart: crlf + 3 }
  return { length: block.length, bodyStart: -1 }
}

/** Printable US-ASCII without blanks inside (RFC 5322 section 3.6.8); blanks around it pass. */
function isFieldName(text: string, from: number, to: number): boolean {
  let start = from
  let end = to
  while (start < end && isBlank(text.charCodeAt(start))) start += 1
  while (end > start && isBlank(text.charCodeAt(end - 1))) end -= 1
  if (start === end || end - start > 1_000) return false
  for (let at = start; at < end; at += 1) {
    const code = text.charCodeAt(at)
    if (code < 33 || code > 126) return false
  }
  return true
}

function trimBlanks(written: string): string {
  let start = 0
  let end = written.length
  while (start < end && isBlank(written.charCodeAt(start))) start += 1
  while (end > start && isBlank(written.charCodeAt(end - 1))) end -= 1
  return start === 0 && end === written.length ? written : written.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9 || code === 0
}

const decoders = new Map<string, TextDecoder>()

/** Text of `bytes` in `charset`; an unknown charset is read as UTF-8, or Latin-1 when it is none. */
export function decodeCharset(bytes: Uint8Array, charset: string | null): string {
  const label = (charset ?? 'utf-8').toLowerCase()
  let decoder = decoders.get(label)
  if (decoder === undefined) {
    decoder = newDecoder(label)
    // A hostile mail names charsets without end: only so many are remembered.
    if (decoders.size < 64) decoders.set(label, decoder)
  }
  return decoder.decode(bytes)
}

function newDecoder(label: string): TextDecoder {
  try {
    return new TextDecoder(label as ConstructorParameters<typeof TextDecoder>[0])
  } catch {
    return new TextDecoder('utf-8')
  }
}

/** Octets as characters to text: UTF-8 when they are that, else Latin-1. */
export function octetsToText(octets: string): string {
  if (!/[^\x00-\x7f]/.test(octets)) return octets
  const bytes = Buffer.from(octets, 'latin1')
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return decodeCharset(bytes, 'windows-1252')
  }
}

const ENCODED_WORD = /=\?([^?\s]{1,80})\?([bq])\?([^?]*)\?=/gi

/** A field value as a person reads it: encoded words decoded (RFC 2047). Never throws. */
export function decodeText(octets: string): string {
  if (!octets.includes('=?')) return octetsToText(octets)
  let text = ''
  let at = 0
  // Words that follow each other may share a character: their octets are joined first.
  let pending: Buffer[] = []
  let charset = ''
  const flush = (): void => {
    if (pending.length === 0) return
    text += decodeCharset(
      pending.length === 1 ? (pending[0] ?? Buffer.of()) : Buffer.concat(pending),
      charset,
    )
    pending = []
  }
  for (const match of octets.matchAll(ENCODED_WORD)) {
    const between = octets.slice(at, match.index)
    // RFC 2231 section 5 adds a language after `*`.
    const label = (match[1] ?? '').split('*')[0]?.toLowerCase() ?? ''
    if (pending.length > 0 && (label !== charset || between.trim() !== '')) flush()
    if (pending.length === 0 && (text === '' || between.trim() !== ''))
      text += octetsToText(between)
    charset = label
    const body = match[3] ?? ''
    pending.push(
      (match[2] ?? '').toLowerCase() === 'b' ? Buffer.from(body, 'base64') : decodeQ(body),
    )
    at = match.index + match[0].length
  }
  flush()
  return text + octetsToText(octets.slice(at))
}

/** The `Q` encoding of RFC 2047 section 4.2. */
function decodeQ(text: string): Buffer {
  const out = text
    .replace(/_/g, ' ')
    .replace(/=([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(out, 'latin1')
}

/** One line that is safe to store and to list: no control or direction characters, at most `charsMax`. */
export function plainLine(text: string, charsMax: number): string {
  return text
    .slice(0, charsMax * 4)
    .replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]+/g, ' ')
    .replace(/[\u202a-\u202e\u2066-\u2069\ufeff]/g, '')
    .trim()
    .slice(0, charsMax)
}
