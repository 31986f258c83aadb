/**
 * PDF (ISO 32000), read as a hostile file: no table of it is believed. Everything between streams
 * is searched for what acts, and streams are unpacked within a budget.
 */
import { inflateSync } from 'node:zlib'
import { Inflate } from 'fflate'
import { lockOf, type PdfLock } from './pdf-lock.ts'
import { lockedScore, type Scene } from './scene.ts'

/** Streams that hold objects or files are unpacked up to this in all. */
const HOLDING_BYTES_MAX = 48 * 1024 * 1024
/** Other streams, pages mostly. */
const OTHER_BYTES_MAX = 8 * 1024 * 1024
const STREAM_BYTES_MAX = 32 * 1024 * 1024
const STREAMS_MAX = 50_000
/** What stands between streams, that of unpacked objects included. */
const TEXT_CHARS_MAX = 32 * 1024 * 1024
/** A dictionary before its stream. */
const DICTIONARY_BYTES_MAX = 16 * 1024
const URLS_MAX = 200

export function lookAtPdf(content: Buffer, scene: Scene): void {
  const pdf = new Pdf(content, scene)
  pdf.read()
  pdf.tell()
}

type Stream = { readonly number: string; readonly dictionary: string; readonly packed: Buffer }

class Pdf {
  readonly #bytes: Buffer
  readonly #scene: Scene
  readonly #texts: string[] = []
  readonly #later: Stream[] = []
  #lock: PdfLock | null = null
  #chars = 0
  #holding = HOLDING_BYTES_MAX
  #other = OTHER_BYTES_MAX

  constructor(bytes: Buffer, scene: Scene) {
    this.#bytes = bytes
    this.#scene = scene
  }

  read(): void {
    const bytes = this.#bytes
    const streams: Stream[] = []
    let from = 0
    for (let at = bytes.indexOf('stream'); at !== -1; at = bytes.indexOf('stream', from)) {
      if (bytes.toString('latin1', at - 3, at) === 'end') {
        this.#text(bytes.toString('latin1', from, at))
        from = at + 6
        continue
      }
      const before = bytes.toString('latin1', Math.max(from, at - DICTIONARY_BYTES_MAX), at)
      if (!/>>[\s\0]*(?:%[^\r\n]*[\r\n]+)?$/.test(before.slice(-300))) {
        this.#text(bytes.toString('latin1', from, at + 6))
        from = at + 6
        continue
      }
      this.#text(bytes.toString('latin1', from, at))
      let start = at + 6
      if (bytes[start] === 13) start += 1
      if (bytes[start] === 10) start += 1
      const found = bytes.indexOf('endstream', start)
      const end = found === -1 ? bytes.length : found
      const object = before.lastIndexOf(' obj')
      const number =
        /(\d{1,10} \d{1,5})\s+obj/.exec(before.slice(Math.max(0, object - 20)))?.[1] ?? ''
      const dictionary = plainNames(before.slice(Math.max(0, object)))
      streams.push({ number, dictionary, packed: bytes.subarray(start, end) })
      from = found === -1 ? bytes.length : end
      if (streams.length > STREAMS_MAX) {
        this.#limit(`has more than ${STREAMS_MAX} streams`)
        break
      }
    }
    this.#text(bytes.toString('latin1', from))
    this.#lock = lockOf(this.#texts.join('\n'))
    for (const stream of streams) this.#stream(stream)
  }

  #text(text: string): void {
    if (text.length < 2) return
    this.#chars += text.length
    if (this.#chars > TEXT_CHARS_MAX) this.#limit('holds too much text between its streams')
    else this.#texts.push(plainNames(text))
  }

  #limit(what: string): void {
    this.#scene.say('DOCUMENT_LIMIT', 5, `${this.#scene.path} ${what}.`)
  }

  #stream(stream: Stream): void {
    const { dictionary } = stream
    const objects = /\/Type\s*\/ObjStm\b/.test(dictionary)
    const file = /\/(?:Type\s*\/EmbeddedFile|Params)\b/.test(dictionary)
    const rich = /\/(?:Type\s*\/XRef|Subtype\s*\/Image|Length1\s)\b/.test(dictionary)
    // Pixels and fonts do not act, and cost most.
    if (rich && !objects && !file) return
    const budget = objects || file ? this.#holding : this.#other
    if (budget <= 0) {
      if (objects || file) this.#limit('unpacks to more than is looked at')
      return
    }
    const content = this.#unpacked(stream, Math.min(budget, STREAM_BYTES_MAX))
    if (content === null) {
      if (objects || file)
        this.#scene.say(
          'DOCUMENT_UNREADABLE',
          5,
          `${this.#scene.path} has objects that cannot be unpacked.`,
        )
      return
    }
    if (objects || file) this.#holding -= content.length
    else this.#other -= content.length
    if (objects) this.#text(content.toString('latin1'))
    else if (file) this.#scene.embed(null, 'pdf', content)
    else this.#later.push({ ...stream, packed: content })
  }

  /** Null: its filters are unknown here, or it is damaged. What is larger is cut. */
  #unpacked({ number, dictionary, packed }: Stream, bytesMax: number): Buffer | null {
    let content: Buffer | null = this.#lock === null ? packed : this.#lock.open(packed, number)
    for (const filter of filtersOf(dictionary)) {
      if (content === null) return null
      content = unfilter(filter, content, bytesMax)
    }
    return content === null ? null : content.subarray(0, bytesMax)
  }

  tell(): void {
    const scene = this.#scene
    const { path } = scene
    const text = this.#texts.join('\n')
    if (this.#lock !== null && !this.#lock.opens)
      scene.say('DOCUMENT_ENCRYPTED', lockedScore(scene.settings), `${path} is encrypted.`)
    const scripts = this.#scripts(text)
    if (scripts.length > 0 || /\/(?:JavaScript|JS)\b/.test(text)) {
      scene.say('PDF_SCRIPT', 2, `${path} holds a script.`)
      if (runsOnOpening(text))
        scene.say('PDF_SCRIPT_RUNS', 4, `${path} runs a script when it is opened.`)
      const hostile = HOSTILE.exec(scripts.join('\n'))?.[0]
      if (hostile !== undefined)
        scene.say(
          'PDF_SCRIPT_HOSTILE',
          6,
          `A script of ${path} does what forms do not need (${hostile.slice(0, 40)}).`,
        )
    }
    if (/\/S\s*\/Launch\b|\/Launch\s*<</.test(text))
      scene.say('PDF_LAUNCHES', 8, `${path} starts a program.`)
    if (/\/(?:RichMedia|Flash)\b/.test(text))
      scene.say('PDF_FLASH', 4, `${path} holds Flash or a film.`)
    if (/\/S\s*\/(?:GoToR|GoToE|ImportData|SubmitForm)\b/.test(text)) {
      const share = /\/F\s*(?:<<[^>]{0,500})?\(\s*((?:\\\\){2}[^)]{1,200}|file:[^)]{1,200})/i.exec(
        text,
      )?.[1]
      if (share !== undefined)
        scene.say('PDF_REMOTE', 6, `${path} reaches for ${share.slice(0, 100)}.`)
    }
    let urls = 0
    for (const match of text.matchAll(
      /\/URI\s*(?:\(((?:[^()\\]|\\[\s\S]){1,2000})\)|<([0-9a-fA-F\s]{1,4000})>)/g,
    )) {
      urls += 1
      if (urls > URLS_MAX) break
      const url = match[1] === undefined ? hexText(match[2] ?? '') : literal(match[1])
      if (/^(?:https?|ftp):/i.test(url)) scene.url(url.slice(0, 500))
    }
    for (const { packed } of this.#later) {
      if (packed.includes('EICAR') || isCarrier(packed)) scene.embed(null, 'pdf', packed)
    }
  }

  /** Sources of scripts: in place, and in streams that a script names. */
  #scripts(text: string): readonly string[] {
    const sources: string[] = []
    for (const match of text.matchAll(
      /\/JS\s*(?:\(((?:[^()\\]|\\[\s\S]){0,65536})|<([0-9a-fA-F\s]{2,65536})>|(\d{1,10} \d{1,5}) R)/g,
    )) {
      if (sources.length >= 100) break
      if (match[1] !== undefined) sources.push(literal(match[1]))
      else if (match[2] !== undefined) sources.push(hexText(match[2]))
      else {
        const stream = this.#later.find(({ number }) => number === match[3])
        if (stream !== undefined) sources.push(stream.packed.toString('latin1', 0, 1_000_000))
      }
    }
    return sources
  }
}

const HOSTILE =
  /\b(?:eval|unescape|exportDataObject|launchURL|getURL|submitForm|importDataObject|util\.printf|media\.newPlayer|Collab\.\w+|getAnnots|app\.setTimeOut|spell\.\w+|SOAP\.\w+|fromCharCode)\b/

/** Bytes of a page that are a program or an archive are there for somebody else. */
function isCarrier(content: Buffer): boolean {
  const head = content.toString('latin1', 0, 8)
  return /^(?:PK\x03\x04|MZ\x90|Rar!|7z\xbc\xaf|\xd0\xcf\x11\xe0|\x7fELF|%PDF)/.test(head)
}

/** The names of a document that are called when it opens. */
function runsOnOpening(text: string): boolean {
  if (/\/Names\s*<<[^>]{0,500}\/JavaScript\b/.test(text)) return true
  for (const match of text.matchAll(/\/OpenAction\s*(?:(\d{1,10} \d{1,5}) R|<<([\s\S]{0,400}))/g)) {
    const action = match[1] === undefined ? (match[2] ?? '') : objectOf(text, match[1])
    if (/\/(?:JavaScript|JS)\b/.test(action)) return true
  }
  return false
}

function objectOf(text: string, number: string): string {
  const at = text.search(new RegExp(`(?:^|[^\\d])${number}\\s+obj\\b`))
  // Objects of an object stream have lost their number; nobody else says JS there.
  return at === -1 ? text : text.slice(at, at + 1_000)
}

/** Names may be written with codes, `/J#61va`: readers take them for the same. */
function plainNames(text: string): string {
  return text.includes('#')
    ? text.replace(/#([0-9a-fA-F]{2})/g, (_, code: string) =>
        String.fromCharCode(Number.parseInt(code, 16)),
      )
    : text
}

function literal(text: string): string {
  const plain = text.replace(
    /\\(?:([0-7]{1,3})|\r?\n|([\s\S]))/g,
    (_, octal: string | undefined, letter: string | undefined) =>
      octal === undefined
        ? letter === undefined
          ? ''
          : (ESCAPES[letter] ?? letter)
        : String.fromCharCode(Number.parseInt(octal, 8) & 255),
  )
  return plain.startsWith('\xfe\xff') ? plain.slice(2).replace(/\0/g, '') : plain
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', b: '\b', f: '\f' }

function hexText(hex: string): string {
  const text = Buffer.from(hex.replace(/\s+/g, ''), 'hex').toString('latin1')
  return text.startsWith('\xfe\xff') ? text.slice(2).replace(/\0/g, '') : text
}

/** Filters in their order; their long and short names. */
function filtersOf(dictionary: string): readonly string[] {
  const written = /\/F(?:ilter)?\s*(\[[^\]]{0,500}\]|\/\w{1,40})/.exec(dictionary)?.[1] ?? ''
  return (written.match(/\/\w{1,40}/g) ?? []).slice(0, 8).map((name) => name.slice(1))
}

function unfilter(filter: string, content: Buffer, bytesMax: number): Buffer | null {
  switch (filter) {
    case 'FlateDecode':
    case 'Fl':
      return inflate(content, bytesMax)
    case 'ASCIIHexDecode':
    case 'AHx': {
      const text = content.toString('latin1')
      const end = text.indexOf('>')
      return Buffer.from(
        text.slice(0, end === -1 ? text.length : end).replace(/[^0-9a-fA-F]+/g, ''),
        'hex',
      )
    }
    case 'ASCII85Decode':
    case 'A85':
      return ascii85(content)
    case 'RunLengthDecode':
    case 'RL':
      return runLength(content, bytesMax)
    case 'Crypt':
      return content
    default:
      return null
  }
}

/** What is damaged at its end gives its beginning, as readers do. */
export function inflate(packed: Buffer, bytesMax: number): Buffer | null {
  try {
    return inflateSync(packed, { maxOutputLength: Math.min(bytesMax, 4 * 1024 * 1024) })
  } catch {
    const pieces: Uint8Array[] = []
    let size = 0
    const stream = new Inflate((piece) => {
      size += piece.length
      pieces.push(piece)
    })
    try {
      for (let at = 2; at < packed.length && size < bytesMax; at += 16_384)
        stream.push(packed.subarray(at, at + 16_384), at + 16_384 >= packed.length)
    } catch {
      // The checksum of zlib, or what stands behind it.
    }
    return size === 0 ? null : Buffer.concat(pieces).subarray(0, bytesMax)
  }
}

function ascii85(content: Buffer): Buffer {
  const out = Buffer.alloc(content.length * 4)
  let to = 0
  let group: number[] = []
  const flush = (): void => {
    if (group.length < 2) return
    const count = group.length - 1
    while (group.length < 5) group.push(84)
    const word = group.reduce((sum, digit) => sum * 85 + digit, 0) >>> 0
    for (let index = 0; index < count; index += 1, to += 1)
      out[to] = (word >>> (24 - index * 8)) & 255
    group = []
  }
  for (const byte of content) {
    if (byte === 126) break
    if (byte === 122 && group.length === 0) {
      to += 4
      continue
    }
    if (byte < 33 || byte > 117) continue
    group.push(byte - 33)
    if (group.length === 5) flush()
  }
  flush()
  return out.subarray(0, to)
}

function runLength(content: Buffer, bytesMax: number): Buffer {
  const pieces: Buffer[] = []
  let size = 0
  for (let at = 0; at < content.length && size < bytesMax; ) {
    const length = content[at] ?? 128
    if (length === 128) break
    const piece =
      length < 128
        ? content.subarray(at + 1, at + 2 + length)
        : Buffer.alloc(257 - length, content[at + 1] ?? 0)
    pieces.push(piece)
    size += piece.length
    at += length < 128 ? 2 + length : 2
  }
  return Buffer.concat(pieces)
}
