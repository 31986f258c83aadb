/**
 * The walk over the raw bytes of a message: the one tree of RFC 2045 and RFC 2046, and beside it what
 * other readers would see, within bounds. mime.ts holds what it finds.
 */
import { boundaryReadings, guessBoundary, isPlain } from './boundary.ts'
import type { EnclosedFile } from './enclosed.ts'
import { fieldValues, type Header, readHeader } from './header.ts'
import { fileNames, type Parametered, paramReadings, parseParametered } from './parameters.ts'
import { hiddenHeaders, nextDelimiter } from './sweep.ts'
import { type Decoded, decodeBase64, decodeQuotedPrintable } from './transfer.ts'

export type MimeBounds = {
  /** Levels of multipart and message/rfc822; the message itself is level 0. */
  readonly depthMax: number
  readonly partsMax: number
  /** Octets of one header. */
  readonly headerBytesMax: number
  /** Octets of decoded content that is kept for the next inspector that asks. */
  readonly keptBytesMax: number
}

export const MIME_BOUNDS: MimeBounds = {
  depthMax: 20,
  partsMax: 1_000,
  headerBytesMax: 256 * 1024,
  keptBytesMax: 48 * 1024 * 1024,
}

export type Part = {
  readonly header: Header
  /** The first declared type in lower case, or the default of its place. */
  readonly type: string
  /** The first charset that is declared for it, lower case. */
  readonly charset: string | null
  /** Every file name that some reader would show; at most 10, decoded, not cleaned. */
  readonly names: readonly string[]
  /** First word of Content-Disposition in lower case, or null. */
  readonly disposition: string | null
  /** Transfer encodings by which the content may be read; `identity` when none. */
  readonly encodings: readonly TransferEncoding[]
  readonly depth: number
  /** Holds other parts; its own content is not decoded. */
  readonly container: boolean
  /**
   * `strict`: of the one tree. `lenient`: only some readers see it, or see it so.
   * `enclosed`: a file inside the content of another part (uuencode, TNEF…), already decoded.
   */
  readonly view: 'strict' | 'lenient' | 'enclosed'
  /** Content as it stands, still encoded: `source` from `start` to `end`. */
  readonly source: Buffer
  readonly start: number
  readonly end: number
}

/** `uuencode`: as it stands, with the file inside; it is a part of its own. */
export type TransferEncoding = 'identity' | 'base64' | 'quoted-printable' | 'uuencode'

/** A fact that makes readers differ, or a bound that cut the walk short. */
export type MimeFlaw = {
  readonly kind: 'ambiguous' | 'broken' | 'limit'
  /** A whole sentence. */
  readonly what: string
}

/** Flaws that are kept; the first ones tell enough. */
const FLAWS_MAX = 20
/** RFC 2046 section 5.1.1. */
const BOUNDARY_CHARS_MAX = 70
/** Headers of one message that stand where none should. */
const HIDDEN_MAX = 200
/** Octets of such a header. */
const HIDDEN_BYTES_MAX = 16 * 1024
/** Encoded octets of all parts that only some readers see: each is decoded in several ways. */
const LENIENT_BYTES_MAX = 16 * 1024 * 1024

export const EMPTY_HEADER: Header = readHeader(Buffer.of(), 0, 0, 0)

/** Not read as text by those who see it: each octet counts. */
export function isFile({ names, disposition, type, view }: Part): boolean {
  return (
    names.length > 0 ||
    disposition === 'attachment' ||
    !type.startsWith('text/') ||
    view !== 'strict'
  )
}

/** The content in one encoding. */
export function decodeContent(part: Part, encoding: TransferEncoding): Decoded {
  switch (encoding) {
    case 'base64':
      return decodeBase64(part.source, part.start, part.end)
    case 'quoted-printable':
      return decodeQuotedPrintable(part.source, part.start, part.end, isFile(part))
    case 'identity':
    case 'uuencode':
      return { contents: [part.source.subarray(part.start, part.end)], sound: true }
  }
}

/** Where a part is to be read, and whether the one tree has it. */
type Place = {
  readonly source: Buffer
  readonly start: number
  readonly end: number
  readonly depth: number
  readonly digest: boolean
  readonly strict: boolean
  /** Holds what other places hold too, to a reader that misses a delimiter: headers in it are known. */
  readonly wide?: boolean
}

/** A stretch that is no header to the tree. `gap`: outside all parts of its multipart. */
type Region = {
  readonly part: Part
  readonly start: number
  readonly end: number
  readonly gap: boolean
}

export class Walk {
  readonly parts: Part[] = []
  readonly flaws: MimeFlaw[] = []
  readonly #bounds: MimeBounds
  /** A stack of our own: 100,000 nested messages must not end ours. */
  readonly #todo: Place[] = []
  readonly #regions: Region[] = []
  #lenientBytes = 0
  #hiddenLeft = HIDDEN_MAX

  constructor(bounds: MimeBounds) {
    this.#bounds = bounds
  }

  run(raw: Buffer): void {
    this.#walk(raw, 0, true)
  }

  /** A message inside the content of `part`: those see it who open its wrapping. */
  unwrap(part: Part, message: Buffer): void {
    if (part.depth < this.#bounds.depthMax) this.#walk(message, part.depth + 1, false)
    else this.flaw('limit', `Parts are nested more than ${this.#bounds.depthMax} deep.`)
  }

  #walk(source: Buffer, depth: number, strict: boolean): void {
    this.#todo.push({ source, start: 0, end: source.length, depth, digest: false, strict })
    for (let place = this.#todo.pop(); place !== undefined; place = this.#todo.pop()) {
      if (!this.#room()) break
      this.#read(place)
    }
    this.#sweep()
  }

  flaw(kind: MimeFlaw['kind'], what: string): void {
    if (this.flaws.length >= FLAWS_MAX || this.flaws.some((flaw) => flaw.what === what)) return
    this.flaws.push({ kind, what })
  }

  enclose(part: Part, { names, content }: EnclosedFile): void {
    if (!this.#room()) return
    this.parts.push({
      header: EMPTY_HEADER,
      type: 'application/octet-stream',
      charset: null,
      names,
      disposition: 'attachment',
      encodings: IDENTITY,
      depth: part.depth + 1,
      container: false,
      view: 'enclosed',
      source: content,
      start: 0,
      end: content.length,
    })
  }

  #room(): boolean {
    if (this.parts.length < this.#bounds.partsMax) return true
    this.flaw('limit', `The message has more than ${this.#bounds.partsMax} parts.`)
    return false
  }

  #read({ source, start, end, depth, digest, strict, wide = false }: Place): void {
    const header = readHeader(source, start, end, this.#bounds.headerBytesMax)
    const odd = this.#oddities(header)
    const values = fieldValues(header, 'content-type')
    const types = values.map(parseBare)
    if (types.length > 1) this.flaw('ambiguous', 'A part has two Content-Type fields.')
    if (types.some(({ value }) => value.includes(','))) {
      this.flaw('ambiguous', 'A Content-Type field names two types.')
    }
    const declared = types[0]?.value ?? ''
    const type = declared === '' ? (digest ? 'message/rfc822' : 'text/plain') : declared
    const multipart = types.some(({ value }) => value.includes('multipart/'))
    const nested = isMessage(type) || types.some(({ value }) => isMessage(value))
    const dispositions = fieldValues(header, 'content-disposition')
    const charset = types
      .map((each) => paramReadings(each, 'charset')[0])
      .find((each) => each !== undefined)
    const [disposition] = dispositions
    const part: Part = {
      header,
      type,
      charset: charset?.toLowerCase() ?? null,
      names: fileNames(dispositions, values),
      disposition: disposition === undefined ? null : parseParametered(disposition).value,
      encodings: this.#encodings(header, odd),
      depth,
      container: multipart || nested,
      view: strict ? 'strict' : 'lenient',
      source,
      start: header.bodyStart,
      end,
    }
    this.parts.push(part)
    if (header.flaws.firstJunk !== -1) this.#asText(part, header.flaws.firstJunk, part.encodings)
    if (!part.container) {
      if (!wide) this.#regions.push({ part, start: part.start, end, gap: false })
      return
    }
    if (wide) return
    // To a reader that takes another type, or no type, it is one file.
    if (types.length > 1 || declared.includes(',')) this.#asText(part, part.start, EVERY)
    if (depth >= this.#bounds.depthMax) {
      this.flaw('limit', `Parts are nested more than ${this.#bounds.depthMax} deep.`)
      return
    }
    if (multipart) this.#split(part, types, values)
    else this.#enter(part)
  }

  /** Says what makes this header another one to some; true when its fields cannot be relied on. */
  #oddities({ cut, flaws, fields }: Header): boolean {
    if (cut) this.flaw('limit', `A header is larger than ${this.#bounds.headerBytesMax} bytes.`)
    const blank = flaws.blankBeforeColon.some((name) => name.startsWith('content-'))
    if (blank) this.flaw('ambiguous', 'A Content field has blanks before its colon.')
    if (flaws.oddContent) {
      this.flaw('ambiguous', 'A Content field stands in a fold or on a line that is no field.')
    }
    if (flaws.nul) this.flaw('ambiguous', 'A header holds a NUL.')
    if (flaws.bareCr) this.flaw('ambiguous', 'A header holds a CR that ends no line.')
    const foreign = fields.some(
      ({ name, value }) => name.startsWith('content-') && FOREIGN.test(value),
    )
    if (foreign) this.flaw('ambiguous', 'A Content field holds controls or another field.')
    return blank || flaws.oddContent || flaws.nul || flaws.bareCr || foreign
  }

  /** Adds what some readers see; false when too much was added. */
  #lenient(part: Part): boolean {
    if (part.encodings[0] !== 'identity') this.#lenientBytes += part.end - part.start
    if (this.#lenientBytes > LENIENT_BYTES_MAX) {
      this.flaw('limit', 'The message can be read in too many ways.')
      return false
    }
    if (!this.#room()) return false
    this.parts.push(part)
    return true
  }

  /** The same part to a reader for whom its content is one file that begins at `start`. */
  #asText(part: Part, start: number, encodings: readonly TransferEncoding[]): void {
    const lenient: Part = { ...part, encodings, container: false, view: 'lenient', start }
    if (!this.#lenient(lenient)) return
    this.#regions.push({ part, start, end: part.end, gap: false })
  }

  /** message/rfc822: its content is a message again, decoded first where it is encoded. */
  #enter(part: Part): void {
    for (const [index, encoding] of part.encodings.entries()) {
      const whole = encoding === 'identity'
      const source = whole
        ? part.source
        : (decodeContent(part, encoding).contents[0] ?? part.source)
      this.#todo.push({
        source,
        start: whole ? part.start : 0,
        end: whole ? part.end : source.length,
        depth: part.depth + 1,
        digest: false,
        strict: part.view === 'strict' && index === 0,
      })
    }
  }

  #split(part: Part, types: readonly Parametered[], values: readonly string[]): void {
    if (part.encodings.some((encoding) => encoding !== 'identity')) {
      this.flaw('ambiguous', 'A multipart has a transfer encoding.')
      this.#asText(part, part.start, EVERY)
    }
    const boundaries = new Set<string>()
    for (const [index, type] of types.entries()) {
      for (const reading of boundaryReadings(type)) boundaries.add(reading)
      if (type.value.includes('multipart/') && !isPlain(type.value, values[index] ?? '')) {
        this.flaw('ambiguous', 'A multipart has no boundary that all readers take alike.')
      }
    }
    if (boundaries.size > 1) this.flaw('ambiguous', 'A multipart has two boundaries.')
    for (const boundary of boundaries) {
      if (boundary === '' || boundary.length > BOUNDARY_CHARS_MAX) {
        this.flaw('ambiguous', 'A boundary is empty or longer than the standard allows.')
      }
    }
    const digest = part.type === 'multipart/digest'
    let found = 0
    for (const boundary of boundaries) {
      found += this.#cut(part, boundary, digest, part.view === 'strict' && found === 0)
    }
    if (found > 0 || part.end - part.start <= 2) return
    this.flaw('broken', 'A multipart has no part that its boundary marks.')
    this.#asText(part, part.start, EVERY)
    // Some readers guess the boundary by the first line that looks like one.
    const guess = guessBoundary(part.source.subarray(part.start, part.end))
    if (guess !== null) this.#cut(part, guess, digest, false)
  }

  /** Puts the parts between the lines of `boundary` on the list; returns their number. */
  #cut(part: Part, boundary: string, digest: boolean, strict: boolean): number {
    const body = part.source.subarray(part.start, part.end)
    const needle = Buffer.from(`--${boundary}`, 'utf8')
    const places: Place[] = []
    let open = -1
    let gap = 0
    let closed = false
    // First part whose end some miss, for the blanks behind the delimiter.
    let missed: Place | undefined
    const close = (before: number): void => {
      if (open === -1) {
        this.#gap(part, gap, before)
        return
      }
      // The line end before a delimiter belongs to the delimiter (RFC 2046 section 5.1.1).
      let end = before
      if (end > open && body[end - 1] === 10) end -= 1
      if (end > open && body[end - 1] === 13) end -= 1
      places.push({
        source: part.source,
        start: part.start + open,
        end: part.start + Math.max(open, end),
        depth: part.depth + 1,
        digest,
        strict,
      })
    }
    for (let at = body.indexOf(needle); at !== -1; at = body.indexOf(needle, at + needle.length)) {
      if (at > 0 && body[at - 1] !== 10 && body[at - 1] !== 13) continue
      let after = at + needle.length
      const last = body[after] === 45 && body[after + 1] === 45
      if (last) after += 2
      const name = after
      while (body[after] === 32 || body[after] === 9) after += 1
      const blanks = after > name
      if (body[after] === 13) after += 1
      if (body[after] === 10) after += 1
      else if (after < body.length && body[after - 1] !== 13) continue
      if ((at > 0 && body[at - 1] === 13) || (after < body.length && body[after - 1] === 13))
        this.flaw('ambiguous', 'A CR that ends no line stands beside a boundary.')
      close(at)
      if (blanks) missed ??= open === -1 ? undefined : places.at(-1)
      else missed = this.#widen(missed, part.start + at)
      open = last ? -1 : Math.min(after, body.length)
      if (last) gap = after
      if (!last && closed) this.flaw('ambiguous', 'A part stands after the end of its multipart.')
      closed ||= last
      if (places.length + this.parts.length > this.#bounds.partsMax) break
    }
    if (open !== -1 || places.length > 0) close(body.length)
    this.#widen(missed, part.end)
    // Without its own end some go on, past the delimiters of those around it.
    if (!closed && strict && part.depth > 0 && part.end < part.source.length) {
      this.#widen(places.at(-1), part.source.length)
    }
    // A stack: the last one goes on first, so that the parts come out in their order.
    for (let index = places.length - 1; index >= 0; index -= 1) {
      const place = places[index]
      if (place !== undefined) this.#todo.push(place)
    }
    return places.length
  }

  /** The part as it is to those who read on to `end`. */
  #widen(place: Place | undefined, end: number): undefined {
    if (place === undefined) return
    this.#lenientBytes += end - place.start
    if (this.#lenientBytes > LENIENT_BYTES_MAX) {
      this.flaw('limit', 'The message can be read in too many ways.')
      return
    }
    this.#todo.push({ ...place, end, strict: false, wide: true })
  }

  #gap(part: Part, from: number, to: number): void {
    if (to - from < 40) return
    this.#regions.push({ part, start: part.start + from, end: part.start + to, gap: true })
  }

  #encodings(header: Header, odd: boolean): readonly TransferEncoding[] {
    const values = fieldValues(header, 'content-transfer-encoding')
    if (values.length === 0) return odd ? EVERY : IDENTITY
    if (values.length === 1 && !odd) {
      const plain = KNOWN.get(values[0]?.toLowerCase() ?? '')
      if (plain !== undefined) return plain
    }
    const words = new Set(
      values.flatMap((value) =>
        parseBare(value)
          .value.split(/[\s,;]+/)
          .filter((word) => word !== ''),
      ),
    )
    if (words.size > 1) this.flaw('ambiguous', 'A part has two transfer encodings.')
    return EVERY
  }

  /** Adds what readers see as parts where the tree has none. */
  #sweep(): void {
    const seen = new Map<Buffer, Set<number>>()
    for (const { part, start, end, gap } of this.#regions.splice(0)) {
      if (this.#hiddenLeft <= 0) break
      const hidden = hiddenHeaders(part.source, start, end, this.#hiddenLeft)
      if (hidden.length === 0) continue
      const known = seen.get(part.source) ?? new Set<number>()
      seen.set(part.source, known)
      // One header is one part: its further fields are not counted again.
      const heads: { readonly at: number; readonly header: Header }[] = []
      for (const at of hidden) {
        if (known.has(at) || at < (heads.at(-1)?.header.bodyStart ?? 0)) continue
        known.add(at)
        this.#hiddenLeft -= 1
        heads.push({ at, header: readHeader(part.source, at, end, HIDDEN_BYTES_MAX) })
        if (gap || (at - start < 8 && !HEADED.test(part.type))) {
          this.flaw('ambiguous', 'A header stands where no part begins.')
        }
      }
      for (const [index, { header }] of heads.entries()) {
        this.#hide(part, header, heads[index + 1]?.at ?? end, gap)
      }
    }
    if (this.#hiddenLeft <= 0)
      this.flaw('limit', `The message has ${HIDDEN_MAX} or more hidden headers.`)
  }

  #hide(part: Part, header: Header, end: number, gap: boolean): void {
    const values = fieldValues(header, 'content-type')
    const dispositions = fieldValues(header, 'content-disposition')
    const says = fieldValues(header, 'content-transfer-encoding').length > 0
    const [disposition] = dispositions
    const hidden: Part = {
      header,
      type: parseBare(values[0] ?? '').value || 'text/plain',
      charset: null,
      names: fileNames(dispositions, values),
      disposition: disposition === undefined ? null : parseParametered(disposition).value,
      encodings: says
        ? this.#encodings(header, header.flaws.junkLines > 0)
        : gap
          ? EVERY
          : part.encodings,
      depth: part.depth + 1,
      container: false,
      view: 'lenient',
      source: part.source,
      start: header.flaws.firstJunk === -1 ? header.bodyStart : header.flaws.firstJunk,
      end,
    }
    if (!this.#lenient(hidden)) return
    const delimiter = nextDelimiter(part.source, hidden.start, end)
    if (delimiter < end) this.#lenient({ ...hidden, end: delimiter })
  }
}

/** Types whose content begins with fields. */
const HEADED = /^(?:message\/|text\/rfc822-headers$)/

/** Controls but TAB; a field behind what ends a line to some. */
const FOREIGN = /[\x00-\x08\x0a-\x1f\x7f]|content-(?:type|transfer-encoding|disposition)\s*:/i

const IDENTITY: readonly TransferEncoding[] = ['identity']
/** A doubtful encoding is read in every way. */
const EVERY: readonly TransferEncoding[] = ['base64', 'quoted-printable', 'identity']
const KNOWN: ReadonlyMap<string, readonly TransferEncoding[]> = new Map([
  ['base64', ['base64']],
  ['quoted-printable', ['quoted-printable']],
  ['7bit', IDENTITY],
  ['8bit', IDENTITY],
  ['binary', IDENTITY],
  // Misspelt by many, and no reader decodes anything for them.
  ['7-bit', IDENTITY],
  ['8-bit', IDENTITY],
  ['7bits', IDENTITY],
  ['8bits', IDENTITY],
  ['x-uuencode', ['uuencode']],
  ['uuencode', ['uuencode']],
  ['x-uue', ['uuencode']],
] as const)

function isMessage(type: string): boolean {
  return type === 'message/rfc822' || type === 'message/global' || type === 'message/news'
}

function parseBare(value: string): Parametered {
  return parseParametered(value.includes('\0') ? value.replaceAll('\0', '') : value)
}
