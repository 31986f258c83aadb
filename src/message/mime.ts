/**
 * The parts of a message within bounds (RFC 2045, RFC 2046). One walk over the raw bytes; where
 * readers differ (two boundaries, two encodings) it follows every reading and notes a flaw.
 * Only inspector processes use it: the main process never parses MIME.
 */
import { fieldValues, type Header, paramReadings, parseParametered, readHeader } from './header.ts'
import { decodeBase64, decodeQuotedPrintable } from './transfer.ts'

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
  /** Every charset that is declared for it, lower case. */
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
  /** Content as it stands, still encoded: `source` from `start` to `end`. */
  readonly source: Buffer
  readonly start: number
  readonly end: number
}

export type TransferEncoding = 'identity' | 'base64' | 'quoted-printable'

/** A fact that makes readers differ, or a bound that cut the walk short. */
export type MimeFlaw = {
  readonly kind: 'ambiguous' | 'broken' | 'limit'
  /** A whole sentence. */
  readonly what: string
}

/** Flaws that are kept; the first ones tell enough. */
const FLAWS_MAX = 20
const NAMES_MAX = 10
const NAME_CHARS_MAX = 4_096
/** RFC 2046 section 5.1.1. */
const BOUNDARY_CHARS_MAX = 70

type Place = {
  readonly source: Buffer
  readonly start: number
  readonly end: number
  readonly depth: number
  readonly digest: boolean
}

/** One message, parsed once and shared by all inspectors. */
export class Mail {
  readonly raw: Buffer
  /** In the order of the message; the first one is the message itself. */
  readonly parts: readonly Part[]
  /** Parts that hold content of their own. */
  readonly leaves: readonly Part[]
  readonly flaws: readonly MimeFlaw[]
  readonly #bounds: MimeBounds
  readonly #contents = new Map<Part, readonly Buffer[]>()
  #keptBytes = 0

  constructor(raw: Uint8Array, bounds: MimeBounds = MIME_BOUNDS) {
    this.raw = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength)
    this.#bounds = bounds
    const walk = new Walk(bounds)
    walk.run(this.raw)
    this.parts = walk.parts
    this.leaves = walk.parts.filter((part) => !part.container)
    this.flaws = walk.flaws
  }

  /** Header of the message itself. */
  get header(): Header {
    const root = this.parts[0]
    return root === undefined ? EMPTY_HEADER : root.header
  }

  /** The decoded content in every reading; more than one only where the encoding is doubtful. */
  contents(part: Part): readonly Buffer[] {
    const kept = this.#contents.get(part)
    if (kept !== undefined) return kept
    const contents = part.encodings.map((encoding) => decodeContent(part, encoding))
    const bytes = contents.reduce((sum, content) => sum + content.length, 0)
    if (this.#keptBytes + bytes <= this.#bounds.keptBytesMax) {
      this.#keptBytes += bytes
      this.#contents.set(part, contents)
    }
    return contents
  }
}

const EMPTY_HEADER: Header = readHeader(Buffer.of(), 0, 0, 0)

function decodeContent(part: Part, encoding: TransferEncoding): Buffer {
  switch (encoding) {
    case 'base64':
      return decodeBase64(part.source, part.start, part.end)
    case 'quoted-printable':
      return decodeQuotedPrintable(part.source, part.start, part.end)
    case 'identity':
      return part.source.subarray(part.start, part.end)
  }
}

class Walk {
  readonly parts: Part[] = []
  readonly flaws: MimeFlaw[] = []
  readonly #bounds: MimeBounds
  /** A stack of our own: 100,000 nested messages must not end ours. */
  readonly #todo: Place[] = []

  constructor(bounds: MimeBounds) {
    this.#bounds = bounds
  }

  run(raw: Buffer): void {
    this.#todo.push({ source: raw, start: 0, end: raw.length, depth: 0, digest: false })
    for (let place = this.#todo.pop(); place !== undefined; place = this.#todo.pop()) {
      if (this.parts.length >= this.#bounds.partsMax) {
        this.#flaw('limit', `The message has more than ${this.#bounds.partsMax} parts.`)
        return
      }
      this.#read(place)
    }
  }

  #flaw(kind: MimeFlaw['kind'], what: string): void {
    if (this.flaws.length >= FLAWS_MAX || this.flaws.some((flaw) => flaw.what === what)) return
    this.flaws.push({ kind, what })
  }

  #read({ source, start, end, depth, digest }: Place): void {
    const header = readHeader(source, start, end, this.#bounds.headerBytesMax)
    if (header.cut)
      this.#flaw('limit', `A header is larger than ${this.#bounds.headerBytesMax} bytes.`)
    if (header.flaws.blankBeforeColon.some((name) => name.startsWith('content-'))) {
      this.#flaw('ambiguous', 'A Content field has blanks before its colon.')
    }
    const types = fieldValues(header, 'content-type').map(parseParametered)
    if (types.length > 1) this.#flaw('ambiguous', 'A part has two Content-Type fields.')
    if (types.some(({ value }) => value.includes(','))) {
      this.#flaw('ambiguous', 'A Content-Type field names two types.')
    }
    const declared = types[0]?.value ?? ''
    const type = declared === '' ? (digest ? 'message/rfc822' : 'text/plain') : declared
    const multipart = types.find(({ value }) => value.includes('multipart/'))
    const nested = isMessage(type) || types.some(({ value }) => isMessage(value))
    const encodings = this.#encodings(header)
    const dispositions = fieldValues(header, 'content-disposition').map(parseParametered)
    const charset = types
      .map((each) => paramReadings(each, 'charset')[0])
      .find((each) => each !== undefined)
    const part: Part = {
      header,
      type,
      charset: charset?.toLowerCase() ?? null,
      names: fileNames(types, dispositions),
      disposition: dispositions[0]?.value ?? null,
      encodings,
      depth,
      container: multipart !== undefined || nested,
      source,
      start: header.bodyStart,
      end,
    }
    this.parts.push(part)
    if (!part.container) return
    if (depth >= this.#bounds.depthMax) {
      this.#flaw('limit', `Parts are nested more than ${this.#bounds.depthMax} deep.`)
      return
    }
    if (multipart !== undefined) this.#split(part, types)
    else this.#enter(part)
  }

  /** message/rfc822: its content is a message again, decoded first where it is encoded. */
  #enter(part: Part): void {
    for (const encoding of part.encodings) {
      const source = encoding === 'identity' ? part.source : decodeContent(part, encoding)
      const whole = encoding === 'identity'
      this.#todo.push({
        source,
        start: whole ? part.start : 0,
        end: whole ? part.end : source.length,
        depth: part.depth + 1,
        digest: false,
      })
    }
  }

  #split(part: Part, types: readonly ReturnType<typeof parseParametered>[]): void {
    if (part.encodings.some((encoding) => encoding !== 'identity')) {
      this.#flaw('ambiguous', 'A multipart has a transfer encoding.')
    }
    const boundaries = new Set<string>()
    for (const type of types) {
      for (const reading of paramReadings(type, 'boundary')) {
        boundaries.add(reading.trimEnd().replace(/\0/g, ''))
      }
      if (type.params.filter(({ name }) => name === 'boundary').length > 1) {
        this.#flaw('ambiguous', 'A Content-Type field has two boundary parameters.')
      }
    }
    if (boundaries.size > 1) this.#flaw('ambiguous', 'A multipart has two boundaries.')
    for (const boundary of boundaries) {
      if (boundary === '' || boundary.length > BOUNDARY_CHARS_MAX) {
        this.#flaw('ambiguous', 'A boundary is empty or longer than the standard allows.')
      }
    }
    const digest = part.type === 'multipart/digest'
    let found = 0
    for (const boundary of boundaries) found += this.#cut(part, boundary, digest)
    if (found > 0) return
    if (part.end - part.start <= 2) return
    this.#flaw('broken', 'A multipart has no part that its boundary marks.')
    // Some readers guess the boundary by the first line that looks like one.
    const guess = guessBoundary(part.source.subarray(part.start, part.end))
    if (guess !== null) this.#cut(part, guess, digest)
    else
      this.#todo.push({
        source: part.source,
        start: part.start,
        end: part.end,
        depth: part.depth + 1,
        digest,
      })
  }

  /** Puts the parts between the lines of `boundary` on the list; returns their number. */
  #cut(part: Part, boundary: string, digest: boolean): number {
    const body = part.source.subarray(part.start, part.end)
    const needle = Buffer.from(`--${boundary}`, 'utf8')
    const places: Place[] = []
    let open = -1
    let closed = false
    const close = (before: number): void => {
      if (open === -1) return
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
      })
    }
    for (let at = body.indexOf(needle); at !== -1; at = body.indexOf(needle, at + needle.length)) {
      if (at > 0 && body[at - 1] !== 10 && body[at - 1] !== 13) continue
      let after = at + needle.length
      const last = body[after] === 45 && body[after + 1] === 45
      if (last) after += 2
      while (body[after] === 32 || body[after] === 9) after += 1
      if (body[after] === 13) after += 1
      if (body[after] === 10) after += 1
      else if (after < body.length && body[after - 1] !== 13) continue
      close(at)
      open = last ? -1 : Math.min(after, body.length)
      if (!last && closed) this.#flaw('ambiguous', 'A part stands after the end of its multipart.')
      closed ||= last
      if (places.length + this.parts.length > this.#bounds.partsMax) break
    }
    close(body.length)
    // A stack: the last one goes on first, so that the parts come out in their order.
    for (let index = places.length - 1; index >= 0; index -= 1) {
      const place = places[index]
      if (place !== undefined) this.#todo.push(place)
    }
    return places.length
  }

  #encodings(header: Header): readonly TransferEncoding[] {
    const values = fieldValues(header, 'content-transfer-encoding')
    if (values.length === 0) return IDENTITY
    if (values.length === 1) {
      const plain = KNOWN.get(values[0]?.toLowerCase() ?? '')
      if (plain !== undefined) return plain
    }
    const words = new Set(
      values.flatMap((value) =>
        parseParametered(value.replace(/\0/g, ''))
          .value.split(/[\s,;]+/)
          .filter((word) => word !== ''),
      ),
    )
    if (words.size > 1) this.#flaw('ambiguous', 'A part has two transfer encodings.')
    const only = words.size === 1 ? KNOWN.get([...words][0] ?? '') : undefined
    return only ?? EVERY
  }
}

const IDENTITY: readonly TransferEncoding[] = ['identity']
/** A doubtful encoding is read in every way. */
const EVERY: readonly TransferEncoding[] = ['base64', 'quoted-printable', 'identity']
const KNOWN: ReadonlyMap<string, readonly TransferEncoding[]> = new Map([
  ['base64', ['base64']],
  ['quoted-printable', ['quoted-printable']],
  ['7bit', IDENTITY],
  ['8bit', IDENTITY],
  ['binary', IDENTITY],
] as const)

function isMessage(type: string): boolean {
  return type === 'message/rfc822' || type === 'message/global' || type === 'message/news'
}

function fileNames(
  types: readonly ReturnType<typeof parseParametered>[],
  dispositions: readonly ReturnType<typeof parseParametered>[],
): readonly string[] {
  if (types.every(({ params }) => params.length === 0) && dispositions.length === 0) return []
  const names = new Set<string>()
  for (const disposition of dispositions) {
    for (const name of paramReadings(disposition, 'filename'))
      names.add(name.slice(-NAME_CHARS_MAX))
    for (const name of paramReadings(disposition, 'name')) names.add(name.slice(-NAME_CHARS_MAX))
  }
  for (const type of types) {
    for (const name of paramReadings(type, 'name')) names.add(name.slice(-NAME_CHARS_MAX))
    for (const name of paramReadings(type, 'filename')) names.add(name.slice(-NAME_CHARS_MAX))
  }
  names.delete('')
  return [...names].slice(0, NAMES_MAX)
}

/** What stands after `--` on the first line that begins with it, within the first 64 KB. */
function guessBoundary(body: Buffer): string | null {
  const match = /^--([^\r\n]{1,200}?)(?:--)?[ \t]*$/m.exec(
    body.toString('latin1', 0, Math.min(body.length, 65_536)).replace(/\r/g, ''),
  )
  return match?.[1] ?? null
}
