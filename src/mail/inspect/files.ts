/**
 * All files of a message: its parts, what lies in their archives, and what lies in documents, one
 * after another within a budget. One walk for all inspectors that ask for files.
 */
import { plainLine } from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import type { FileFact, Finding } from '../../message/verdict.ts'
import { Held } from './archives/held.ts'
import { guessesIn, mayOpen, SLOW_GUESSES_MAX } from './archives/passwords.ts'
import { type Extraction, Seven } from './archives/seven.ts'
import {
  gunzipWhole,
  MEMBERS_MAX,
  membersOf,
  nameInGzip,
  unbrotliWhole,
} from './archives/streams.ts'
import { isEicar, lookAtContent, lookAtFile } from './checks.ts'
import { lookAtDocument } from './documents/look.ts'
import type { Scene } from './documents/scene.ts'
import { Found } from './found.ts'
import {
  type ArchiveKind,
  BY_SEVEN,
  hiddenKinds,
  isMedia,
  type Kind,
  kindsOf,
  LAYERS,
} from './kinds.ts'
import type { Look } from './look.ts'
import { viewOf } from './view.ts'
import { DEFLATED, readZip, STORED, unpack, type ZipEntry, ZipError } from './zip.ts'

export type FileBounds = {
  /** Entries of all archives of one message. */
  readonly entriesMax: number
  /** Unpacked bytes of all archives of one message. */
  readonly bytesMax: number
  /** A file in an archive is kept whole up to this size; larger ones pass by in pieces. */
  readonly wholeBytesMax: number
  /** Times what is packed: beyond it, and beyond `growthFreeBytes`, a message is a bomb. */
  readonly growthMax: number
  readonly growthFreeBytes: number
  /** Archives of one message that 7-Zip opens. */
  readonly runsMax: number
}

const MB = 1024 * 1024

export const FILE_BOUNDS: FileBounds = {
  entriesMax: 10_000,
  bytesMax: 100 * MB,
  wholeBytesMax: 32 * MB,
  growthMax: 200,
  growthFreeBytes: 24 * MB,
  runsMax: 64,
}

export type FileFacts = {
  /** Every name that some reader would show; empty for a part without one. */
  readonly names: readonly string[]
  /** Declared type of the part; null inside archives. */
  readonly type: string | null
  /** 0 for a part, 1 for a file in its archive, and so on. */
  readonly depth: number
  /** Archives around it, as the setting counts them: a packed tar is one. */
  readonly level: number
  /** Streams and images right around it that hold one file each. */
  readonly layers: number
  /** For evidence: `invoice.zip > invoice.exe`, one clean line. */
  readonly path: string
  /** What it lies in; null for a part of the message. */
  readonly within: Kind | 'ooxml' | null
  /** SHA-256 of the archives around it, from the outside in. */
  readonly around: readonly string[]
}

/** What all files of a message say, by the inspector that tells it. */
export type Files = {
  readonly attachments: readonly Finding[]
  readonly eicar: readonly Finding[]
  readonly documents: readonly Finding[]
  /** Null: there are no rules of the operator. */
  readonly yara: readonly Finding[] | null
  /** At most 50, in their order. */
  readonly files: readonly FileFact[]
  /** Links that documents hold. */
  readonly urls: readonly string[]
}

/** Looks at each whole file and at the head of larger ones: rules of the operator. */
export type Scan = (content: Buffer, path: string) => void

const walks = new WeakMap<Mail, Files | Promise<Files>>()

/** The same walk for the same mail. A promise only where a file needs more than this process has loaded. */
export function filesOf(
  look: Pick<Look, 'mail' | 'config'>,
  bounds: FileBounds = FILE_BOUNDS,
): Files | Promise<Files> {
  const known = walks.get(look.mail)
  if (known !== undefined) return known
  const files = new Walk(look, bounds).run()
  walks.set(look.mail, files)
  return files
}

const FILES_TOLD_MAX = 50
const URLS_MAX = 100
/** Layers in a row that count as none; a gzip in a gzip in a gzip… is an archive in an archive. */
const LAYERS_FREE = 3
/** A name that says: one piece of several. None of them can be looked into alone. */
const PIECE =
  /\.(?:part0*(?:[2-9]|[1-9]\d+)\.rar|[rz]\d\d|(?:7z|zip|rar|tar|gz|bz2|xz)\.\d{3})[\s.]*$/i

/** What the body of a mail is made of. */
const WORDS: ReadonlySet<Kind> = new Set<Kind>(['html', 'mime', 'svg', 'text', 'xml'])

type Late = {
  readonly file: FileFacts
  readonly bytes: Buffer
  readonly kind: ArchiveKind
  /** Guesses that are worth a try; empty for what is not locked. */
  readonly guesses: readonly string[]
}

let loading: Promise<Seven> | null = null

class Walk {
  readonly #look: Pick<Look, 'mail' | 'config'>
  readonly #bounds: FileBounds
  readonly #levelsMax: number
  readonly #attachments = new Found()
  readonly #documents = new Found()
  readonly #archives = new Found()
  readonly #files: FileFact[] = []
  readonly #urls = new Set<string>()
  readonly #late: Late[] = []
  readonly #held = new Held()
  readonly #opened = new Set<string>()
  #scan: Scan | null = null
  #scanned: (() => readonly Finding[]) | null = null
  #eicar: string | null = null
  #entries = 0
  #bytes = 0
  #runs = 0
  #over = false
  #guesses: readonly string[] | null = null

  constructor(look: Pick<Look, 'mail' | 'config'>, bounds: FileBounds) {
    this.#look = look
    this.#bounds = bounds
    this.#levelsMax = look.config.settings['content.archiveDepth']
  }

  run(): Files | Promise<Files> {
    const { yara } = this.#look.config.detection
    if (Object.keys(yara).length === 0) return this.#parts()
    return this.#withRules(yara)
  }

  async #withRules(sources: Readonly<Record<string, string>>): Promise<Files> {
    // A megabyte of WebAssembly, for those who have rules.
    const { scannerOf } = await import('./yara-rules.ts')
    const scanner = await scannerOf(sources)
    this.#scan = scanner.scan
    this.#scanned = scanner.findings
    return this.#parts()
  }

  #parts(): Files | Promise<Files> {
    const { mail } = this.#look
    for (const part of mail.leaves) {
      const path = pathOf(part.names, part.type)
      for (const content of mail.contents(part)) {
        const plain =
          part.names.length === 0 &&
          part.type.startsWith('text/') &&
          part.disposition !== 'attachment'
        const file = {
          names: part.names,
          type: part.type,
          depth: 0,
          level: 0,
          layers: 0,
          path,
          within: null,
          around: [],
        }
        if (plain) this.#text(file, content)
        else this.#whole(file, content)
      }
    }
    if (this.#eicar === null && isEicar(mail.raw)) this.#eicar = 'The message itself'
    return this.#late.length === 0 ? this.#end() : this.#heavy()
  }

  #end(): Files {
    const eicar: Finding[] =
      this.#eicar === null
        ? []
        : // A virus is held whatever else is said; not refused, so that a person sees it.
          [{ rule: 'EICAR', score: 12, evidence: `${this.#eicar} holds the test virus EICAR.` }]
    return {
      attachments: this.#attachments.list(),
      eicar: [...eicar, ...this.#archives.list()],
      documents: this.#documents.list(),
      yara: this.#scanned?.() ?? null,
      files: this.#files,
      urls: [...this.#urls],
    }
  }

  /** The words of the mail itself: a body that is none (a program, an archive) is a file. */
  #text(file: FileFacts, content: Buffer): void {
    if (kindsOf(content.subarray(0, 600), []).some((kind) => !WORDS.has(kind))) {
      this.#whole(file, content)
      return
    }
    if (this.#eicar === null && isEicar(content)) this.#eicar = file.path
    this.#scan?.(content, file.path)
  }

  /** A file of which all is there. */
  #whole(file: FileFacts, content: Buffer, sha256: string | null = null): void {
    if (this.#over) return
    const { settings } = this.#look.config
    const nameScore = lookAtFile(file, settings['content.extensions'], this.#attachments)
    if (this.#eicar === null && isEicar(content)) this.#eicar = file.path
    const kinds = kindsOf(content, file.names)
    let hash = sha256
    const hashed = (): string => {
      hash ??= hashOf(content)
      return hash
    }
    this.#tell(file, kinds, content.length, hashed)
    this.#scan?.(content, file.path)
    lookAtContent(file, kinds, nameScore, this.#attachments)
    this.#within(file, kinds, content, hashed)
  }

  /** What else there is in a file of these kinds. */
  #within(file: FileFacts, kinds: readonly Kind[], content: Buffer, hashed: () => string): void {
    for (const name of file.names)
      if (PIECE.test(name))
        this.#unreadable(`${file.path} is one piece of an archive that comes in several.`)
    const holds = kinds.some(isArchive) && this.#firstOpening(file, hashed())
    const opened = holds ? { ...file, around: [...file.around, hashed()] } : file
    if (holds) for (const kind of kinds) this.#open(opened, kind, content)
    if (file.names.some((name) => /\.br[\s.]*$/i.test(name))) this.#brotli(file, content)
    lookAtDocument(file, kinds, content, this.#scene(file))
    if (kinds.length === 1 && kinds[0] === 'text') return
    for (const { kind, at } of hiddenKinds(content, kinds)) {
      const shown = kinds.find((each) => each !== 'pe' && each !== 'elf' && each !== 'macho')
      if (shown !== undefined)
        this.#attachments.add(
          'ATTACHMENT_POLYGLOT',
          5,
          `${file.path} is ${shown} to some programs and ${kind} to others.`,
        )
      this.#open(file, kind, content.subarray(at))
    }
  }

  /** Readers show one archive in two ways, and both ways lead to the same files: once is enough. */
  #firstOpening(file: FileFacts, hash: string): boolean {
    if (file.around.includes(hash)) {
      this.#limit(`${file.path} is an archive that holds itself.`)
      return false
    }
    if (this.#opened.has(hash)) return false
    this.#opened.add(hash)
    return true
  }

  #scene(file: FileFacts): Scene {
    return {
      settings: this.#look.config.settings,
      path: file.path,
      say: (rule, score, fact) => this.#documents.add(rule, score, fact),
      url: (url) => {
        if (this.#urls.size < URLS_MAX) this.#urls.add(url)
      },
      embed: (name, kind, content) => {
        if (!this.#deeper(file)) return
        if (!this.#count(content.length, Number.POSITIVE_INFINITY)) return
        const names = name === null ? [] : [name]
        this.#whole(
          this.#inside(file, names, kind, `${file.path} > ${pathOf(names, 'a file in it')}`),
          content,
        )
      },
    }
  }

  #tell(file: FileFacts, kinds: readonly Kind[], sizeBytes: number, hash: () => string): void {
    if (this.#files.length >= FILES_TOLD_MAX) return
    // The hundred pieces of a document are not files to whoever reads the list.
    const piece = file.within === 'ooxml' || file.within === 'ole' || file.within === 'pdf'
    if (
      piece &&
      (kinds[0] === undefined || kinds[0] === 'xml' || kinds[0] === 'text' || isMedia(kinds))
    )
      return
    this.#files.push({
      path: plainLine(file.path, 200),
      type: kinds[0] ?? null,
      sizeBytes,
      sha256: hash(),
    })
  }

  /** Room for `bytes` more; a note and false when there is none. */
  #count(bytes: number, packed: number): boolean {
    this.#bytes += bytes
    if (this.#bytes > this.#bounds.bytesMax) {
      this.#limit(`The archives hold more than ${this.#bounds.bytesMax} bytes.`)
      this.#over = true
    } else if (
      this.#bytes > this.#bounds.growthFreeBytes &&
      this.#bytes > packed * this.#bounds.growthMax
    ) {
      this.#limit(`The archives hold more than ${this.#bounds.growthMax} times their own size.`)
      this.#over = true
    }
    return !this.#over
  }

  #entry(): boolean {
    this.#entries += 1
    if (this.#entries <= this.#bounds.entriesMax) return true
    this.#limit(`The archives hold more than ${this.#bounds.entriesMax} files.`)
    this.#over = true
    return false
  }

  #deeper(file: FileFacts): boolean {
    if (this.#over) return false
    if (file.level < this.#levelsMax) return true
    this.#limit(`${file.path} lies in more than ${this.#levelsMax} archives.`)
    return false
  }

  #limit(fact: string): void {
    this.#archives.add('ARCHIVE_LIMIT', 8, fact)
  }

  #unreadable(fact: string): void {
    this.#archives.add('ARCHIVE_UNREADABLE', 8, fact)
  }

  #locked(fact: string): void {
    this.#archives.add('ARCHIVE_ENCRYPTED', lockedScore(this.#look.config.settings), fact)
  }

  #inside(
    file: FileFacts,
    names: readonly string[],
    kind: Kind | 'ooxml',
    path: string,
  ): FileFacts {
    const layer = kind !== 'ooxml' && LAYERS.has(kind)
    const free = layer && file.layers < LAYERS_FREE
    return {
      names,
      type: null,
      depth: file.depth + 1,
      level: file.level + (free ? 0 : 1),
      layers: layer ? file.layers + 1 : 0,
      path,
      within: kind,
      around: file.around,
    }
  }

  #open(file: FileFacts, kind: Kind, bytes: Buffer): void {
    if (this.#over) return
    if (!isArchive(kind)) return
    if (!this.#deeper(file)) return
    if (kind === 'zip') this.#zip(file, bytes)
    else if (kind === 'gzip') this.#gzip(file, bytes)
    else this.#later(file, kind as ArchiveKind, bytes, this.#mayBeLocked(kind) ? null : [])
  }

  #mayBeLocked(kind: Kind): boolean {
    return kind === '7z' || kind === 'rar' || kind === 'rar5'
  }

  #later(
    file: FileFacts,
    kind: ArchiveKind,
    bytes: Buffer,
    guesses: readonly string[] | null,
  ): void {
    if (this.#runs >= this.#bounds.runsMax) {
      this.#limit(`More than ${this.#bounds.runsMax} archives of kinds that take long to open.`)
      this.#over = true
      return
    }
    this.#runs += 1
    if (!this.#held.take(bytes)) {
      this.#limit(`${file.path} is too large to wait for the others.`)
      return
    }
    this.#late.push({
      file,
      kind,
      bytes,
      guesses: guesses ?? this.#guessesOf().slice(0, SLOW_GUESSES_MAX),
    })
  }

  #guessesOf(): readonly string[] {
    if (this.#guesses === null) {
      const { subject, text } = viewOf(this.#look.mail)
      this.#guesses = guessesIn(subject, text)
    }
    return this.#guesses
  }

  #gzip(file: FileFacts, bytes: Buffer): void {
    if (membersOf(bytes) > MEMBERS_MAX) {
      this.#limit(`${file.path} is packed in more than ${MEMBERS_MAX} pieces.`)
      return
    }
    const content = gunzipWhole(bytes, Math.min(QUICK_BYTES, this.#bounds.bytesMax - this.#bytes))
    if (content === null) {
      this.#later(file, 'gzip', bytes, [])
      return
    }
    if (!this.#entry() || !this.#count(content.length, this.#packed())) return
    const names = layerNames(file, nameInGzip(bytes))
    this.#whole(
      this.#inside(file, names, 'gzip', `${file.path} > ${pathOf(names, 'its content')}`),
      content,
    )
  }

  #brotli(file: FileFacts, bytes: Buffer): void {
    if (!this.#deeper(file)) return
    const content = unbrotliWhole(bytes, Math.min(QUICK_BYTES, this.#bounds.bytesMax - this.#bytes))
    if (content === null) {
      this.#unreadable(`${file.path} cannot be unpacked, or is larger than ${QUICK_BYTES} bytes.`)
      return
    }
    if (!this.#entry() || !this.#count(content.length, this.#packed())) return
    const names = layerNames(file, null)
    this.#whole(
      this.#inside(file, names, 'zstd', `${file.path} > ${pathOf(names, 'its content')}`),
      content,
    )
  }

  /** What came with the message: bombs are measured against it. */
  #packed(): number {
    return this.#look.mail.raw.length
  }

  #zip(file: FileFacts, bytes: Buffer): void {
    const zip = readZip(bytes, this.#bounds.entriesMax - this.#entries)
    this.#entries += zip.entries.length
    if (zip.more) this.#limit(`The archives hold more than ${this.#bounds.entriesMax} files.`)
    for (const what of zip.broken)
      this.#archives.add(
        'ARCHIVE_BROKEN',
        zip.entries.length === 0 ? 8 : 4,
        `${file.path}: ${what}`,
      )
    if (zip.overlap) {
      // Unpacking would read the same bytes over and over: that is what it was made for.
      this.#limit(`${file.path} has entries that overlap.`)
      return
    }
    const office = zip.entries.some(({ names }) =>
      names.some((name) => /^\[content_types\]\.xml$/i.test(name)),
    )
    let foreign = false
    const locked: ZipEntry[] = []
    for (const entry of zip.entries) {
      if (this.#over) return
      if (entry.names.every((name) => name.endsWith('/'))) continue
      if (entry.encrypted) locked.push(entry)
      else if (BY_SEVEN_METHODS.has(entry.method)) foreign = true
      this.#zipEntry(file, bytes, entry, office ? 'ooxml' : 'zip')
    }
    const guesses = locked.length === 0 ? [] : this.#zipGuesses(bytes, locked)
    if (locked.length > 0 && guesses.length === 0)
      for (const { names } of locked.slice(0, 3))
        this.#locked(`${file.path} > ${pathOf(names, 'a file')} is encrypted.`)
    if (foreign || guesses.length > 0) this.#later(file, 'zip', bytes, guesses)
  }

  #zipGuesses(bytes: Buffer, locked: readonly ZipEntry[]): readonly string[] {
    const first = locked[0]
    if (first === undefined) return []
    return this.#guessesOf()
      .filter((guess) => mayOpen(bytes, first, guess))
      .slice(0, 3)
  }

  #zipEntry(archive: FileFacts, bytes: Buffer, entry: ZipEntry, kind: 'zip' | 'ooxml'): void {
    const file = this.#inside(
      archive,
      entry.names,
      kind,
      `${archive.path} > ${pathOf(entry.names, 'a file')}`,
    )
    if (entry.encrypted || (entry.method !== STORED && entry.method !== DEFLATED)) {
      lookAtFile(file, this.#look.config.settings['content.extensions'], this.#attachments)
      if (!entry.encrypted && !BY_SEVEN_METHODS.has(entry.method))
        this.#unreadable(
          `${file.path} is packed by the method ${entry.method}, which nobody here reads.`,
        )
      return
    }
    const sink = this.#sink(file, entry.sizeHint)
    const left = this.#bounds.bytesMax - this.#bytes
    try {
      const size = unpack(bytes, entry, left, (piece) => sink.take(piece))
      if (size > left) this.#count(size, Number.POSITIVE_INFINITY)
    } catch (error) {
      if (!(error instanceof ZipError)) throw error
      this.#unreadable(`${file.path}: ${error.message}`)
    }
    sink.end()
  }

  /** Takes a file in pieces; looks at it when it has ended. */
  #sink(file: FileFacts, sizeHint: number): { take: (piece: Buffer) => boolean; end: () => void } {
    const { wholeBytesMax } = this.#bounds
    const keep = this.#held.keeper(wholeBytesMax, sizeHint)
    const hash = new Bun.CryptoHasher('sha256')
    let size = 0
    let tail: Buffer = Buffer.of()
    let wanted = true
    return {
      take: (piece) => {
        if (!this.#count(piece.length, this.#packed())) wanted = false
        size += piece.length
        hash.update(piece)
        keep.take(piece)
        if (!keep.whole) {
          // What is not kept is searched as it passes, also where two pieces meet.
          if (this.#eicar === null && isEicar(Buffer.concat([tail, piece]))) this.#eicar = file.path
          tail = Buffer.from(piece.subarray(-128))
          if (size > wholeBytesMax && needsWhole(kindsOf(keep.head(), file.names))) wanted = false
        }
        return wanted
      },
      end: () => {
        if (keep.whole) {
          this.#whole(file, keep.content(), hash.digest('hex'))
          keep.free()
          return
        }
        const nameScore = lookAtFile(
          file,
          this.#look.config.settings['content.extensions'],
          this.#attachments,
        )
        const kinds = kindsOf(keep.head(), file.names)
        this.#tell(file, kinds, size, () => hash.digest('hex'))
        lookAtContent(file, kinds, nameScore, this.#attachments)
        this.#scan?.(keep.head(), file.path)
        if (needsWhole(kinds))
          this.#limit(`${file.path} is too large to be looked into inside another file.`)
        keep.free()
      },
    }
  }

  async #heavy(): Promise<Files> {
    loading ??= Seven.load()
    const seven = await loading
    for (
      let late = this.#late.shift();
      late !== undefined && !this.#over;
      late = this.#late.shift()
    ) {
      await this.#extract(seven, late)
      this.#held.give(late.bytes)
    }
    // The memory of each instance is garbage now, and large; nothing tells the engine so.
    Bun.gc(true)
    return this.#end()
  }

  /** With no password first, then with the guesses. */
  async #extract(seven: Seven, late: Late): Promise<void> {
    const zip = late.kind === 'zip'
    const tries: readonly (string | null)[] =
      zip && late.guesses.length > 0 ? late.guesses : [null, ...late.guesses]
    let last: Extraction | null = null
    for (const password of tries) {
      if (last !== null && last.end !== 'encrypted') break
      last = await this.#try(seven, late, password)
      if (last.end === 'damaged' && isLocked(late.bytes, late.kind))
        last = { ...last, end: 'encrypted' }
      if (password !== null && last.end === 'whole') {
        this.#archives.add(
          'ARCHIVE_PASSWORD_IN_MAIL',
          3,
          `${late.file.path} is encrypted, and its password stands in the mail or is a common one.`,
        )
      }
    }
    if (last?.end === 'encrypted') this.#locked(`${late.file.path} is encrypted.`)
    else if (last?.end === 'damaged')
      this.#unreadable(
        `${late.file.path} cannot be read to its end${last.words === '' ? '.' : `: ${plainLine(last.words, 150)}.`}`,
      )
  }

  #try(seven: Seven, { file, bytes, kind }: Late, password: string | null): Promise<Extraction> {
    const layer = LAYERS.has(kind)
    return seven.extract(bytes, kind, password, (name) => {
      if (!this.#entry() || this.#over) return null
      const names = layer && /^in~?(?:\.\w+)?$/.test(name) ? layerNames(file, null) : [name]
      const path = `${file.path} > ${pathOf(names, 'a file')}`
      return this.#sink(this.#inside(file, names, kind, path), 0)
    })
  }
}

/** Unpacked in one call up to this size. */
const QUICK_BYTES = 8 * MB

/** Methods of zip that 7-Zip reads and we do not: Deflate64, BZip2, LZMA, Zstandard, XZ, PPMd. */
const BY_SEVEN_METHODS: ReadonlySet<number> = new Set([1, 6, 9, 12, 14, 93, 95, 98])

function isArchive(kind: Kind): boolean {
  return kind === 'zip' || kind === 'gzip' || BY_SEVEN.has(kind)
}

function needsWhole(kinds: readonly Kind[]): boolean {
  return kinds.some((kind) => kind !== 'text' && kind !== 'xml') && !isMedia(kinds)
}

/** Archives that hide even their list of files say so in their headers. */
function isLocked(bytes: Buffer, kind: ArchiveKind): boolean {
  if (kind === '7z') return bytes.subarray(-4_096).includes(SEVEN_AES)
  if (kind === 'rar5') return bytes.length > 14 && (bytes[13] === 4 || bytes[14] === 4)
  return kind === 'rar' && bytes.length > 12 && bytes[9] === 0x73 && ((bytes[10] ?? 0) & 0x80) !== 0
}

/** Id of the coder 7zAES in a header. */
const SEVEN_AES = Buffer.from([6, 0xf1, 7, 1])

export function lockedScore(settings: Look['config']['settings']): number {
  const { 'content.encrypted': policy } = settings
  return policy === 'hold' ? 8 : policy === 'score' ? 3 : 0
}

function hashOf(content: Buffer): string {
  return new Bun.CryptoHasher('sha256').update(content).digest('hex')
}

/** `a.tar.gz` holds `a.tar`, `a.tgz` too; and the name that the packer kept. */
function layerNames({ names }: FileFacts, kept: string | null): readonly string[] {
  const shown = names.map((name) =>
    name
      .replace(/\.(?:tgz|tbz2?|txz|tzst|taz)[\s.]*$/i, '.tar')
      .replace(/\.(?:gz|bz2?|xz|zst|lzma|z|br|vhdx?|vmdk|vdi|qcow2?|dmg)[\s.]*$/i, ''),
  )
  return [...new Set(kept === null ? shown : [...shown, kept])]
}

function pathOf(names: readonly string[], fallback: string): string {
  return plainLine(names[0] ?? fallback, 100)
}
