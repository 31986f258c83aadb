/**
 * Opens archives, each in the way of its kind: zip and gzip at once, the others by 7-Zip when the
 * walk over the rest is done. What is locked is tried with the passwords of the mail.
 */
import { plainLine } from '../../../message/header.ts'
import type { FileFacts } from '../files.ts'
import type { Found } from '../found.ts'
import { type ArchiveKind, BY_SEVEN, type Kind, LAYERS } from '../kinds.ts'
import { DEFLATED, readZip, STORED, unpack, type ZipEntry, ZipError } from '../zip.ts'
import type { Budget } from './budget.ts'
import type { Held } from './held.ts'
import { mayOpen, SLOW_GUESSES_MAX } from './passwords.ts'
import { type Extraction, Seven } from './seven.ts'
import { filesInSeven } from './seven-list.ts'
import { gunzipWhole, MEMBERS_MAX, membersOf, nameInGzip, unbrotliWhole } from './streams.ts'
import { TarCount } from './tar.ts'

/** Takes a file in pieces, and looks at it when it ends. */
export type FileSink = {
  /** False: the rest is not wanted. */
  readonly take: (piece: Buffer) => boolean
  readonly end: () => void
  readonly sizeBytes: () => number
}

/** Where the files of an archive go. */
export type Receiver = {
  /** `sizeHint`: what the archive says; it may lie. */
  sink(file: FileFacts, sizeHint: number): FileSink
  whole(file: FileFacts, content: Buffer): void
  /** A file of which only the name can be seen. */
  named(file: FileFacts): void
}

export type OpenRules = {
  /** Archives in archives. */
  readonly levelsMax: number
  /** Score of what nobody can look into. */
  readonly lockedScore: number
  /** Asked for once, when something is locked. */
  readonly guesses: () => readonly string[]
}

type Late = {
  readonly file: FileFacts
  readonly bytes: Buffer
  readonly kind: ArchiveKind
  readonly guesses: readonly string[]
}

const MB = 1024 * 1024
/** Unpacked in one call up to this size. */
const QUICK_BYTES = 8 * MB
/** Layers in a row that count as none; a gzip in a gzip in a gzip… is an archive in an archive. */
const LAYERS_FREE = 3
/** Methods of zip that 7-Zip reads and we do not: Deflate64, BZip2, LZMA, Zstandard, XZ, PPMd. */
const FOREIGN_METHODS: ReadonlySet<number> = new Set([1, 6, 9, 12, 14, 93, 95, 98])
/** Passwords that pass the quick check of a zip: one in 256 does by chance. */
const ZIP_GUESSES_MAX = 3
const SIZE_UNSAID = 0xffff_ffff
/** `PK\1\2` in a message of one name: a document of Office, whose parts are not files to a reader. */
const OFFICE_PART = /^(?:\[content_types\]\.xml|mimetype)$/i
/** What a file costs that 7-Zip unpacks, in files. */
const SEVEN_ENTRY = 2
const COLLECT_BYTES = 4 * MB
/** Names that leave the directory they are unpacked in. */
const ESCAPES = /^(?:[\\/]|[a-z]:[\\/])|(?:^|[\\/])\.\.(?:[\\/]|$)/i

let loading: Promise<Seven> | null = null

function isArchive(kind: Kind): kind is ArchiveKind {
  return kind === 'zip' || kind === 'gzip' || BY_SEVEN.has(kind)
}

export class Archives {
  readonly #budget: Budget
  readonly #held: Held
  readonly #found: Found
  readonly #rules: OpenRules
  readonly #to: Receiver
  readonly #late: Late[] = []
  readonly #opened = new Set<string>()

  constructor(budget: Budget, held: Held, found: Found, rules: OpenRules, to: Receiver) {
    this.#budget = budget
    this.#held = held
    this.#found = found
    this.#rules = rules
    this.#to = to
  }

  /** Whether some wait for `openLate`. */
  get waiting(): boolean {
    return this.#late.length > 0
  }

  /** Opens `content` as each of `kinds` that is an archive, once for the same content. */
  open(file: FileFacts, kinds: readonly Kind[], content: Buffer, hashed: () => string): void {
    const archives = kinds.filter(isArchive)
    if (archives.length === 0 || this.#budget.over) return
    const hash = hashed()
    if (file.around.includes(hash)) {
      this.#budget.limit(`${file.path} is an archive that holds itself.`)
      return
    }
    // Readers show one disk in two ways, and both ways lead to the same files: once is enough.
    if (this.#opened.has(hash)) return
    this.#opened.add(hash)
    const opened = { ...file, around: [...file.around, hash] }
    for (const kind of archives) this.openAs(opened, kind, content)
  }

  /** Opens what begins somewhere in a file. */
  openAs(file: FileFacts, kind: ArchiveKind, bytes: Buffer): void {
    if (!this.deeper(file)) return
    if (kind === 'zip') this.#zip(file, bytes)
    else if (kind === 'gzip') this.#gzip(file, bytes)
    else {
      const lockable = kind === '7z' || kind === 'rar' || kind === 'rar5'
      this.#later(
        file,
        kind,
        bytes,
        lockable ? this.#rules.guesses().slice(0, SLOW_GUESSES_MAX) : [],
      )
    }
  }

  /** Brotli has no signature: only its name says so. */
  openBrotli(file: FileFacts, bytes: Buffer): void {
    if (!this.deeper(file)) return
    const content = unbrotliWhole(bytes, Math.min(QUICK_BYTES, this.#budget.bytesLeft))
    if (content === null)
      this.#unreadable(`${file.path} cannot be unpacked, or is larger than ${QUICK_BYTES} bytes.`)
    else this.#layer(file, 'zstd', null, content)
  }

  /** Whether what lies in `file` is still looked at. */
  deeper(file: FileFacts): boolean {
    if (this.#budget.over) return false
    if (file.level < this.#rules.levelsMax) return true
    this.#budget.limit(`${file.path} lies in more than ${this.#rules.levelsMax} archives.`)
    return false
  }

  /** A file of `file`, which is a `kind`. */
  inside(file: FileFacts, names: readonly string[], kind: FileFacts['within']): FileFacts {
    const layer = kind !== null && kind !== 'ooxml' && LAYERS.has(kind)
    const free = layer && file.layers < LAYERS_FREE
    return {
      names,
      type: null,
      depth: file.depth + 1,
      level: file.level + (free ? 0 : 1),
      layers: layer ? file.layers + 1 : 0,
      path: `${file.path} > ${plainLine(names[0] ?? 'a file', 100)}`,
      within: kind,
      around: file.around,
    }
  }

  #unreadable(fact: string): void {
    this.#found.add('ARCHIVE_UNREADABLE', 8, fact)
  }

  #locked(fact: string): void {
    this.#found.add('ARCHIVE_ENCRYPTED', this.#rules.lockedScore, fact)
  }

  #layer(file: FileFacts, kind: Kind, kept: string | null, content: Buffer): void {
    if (!this.#budget.entry() || !this.#budget.count(content.length)) return
    this.#to.whole(this.inside(file, layerNames(file, kept), kind), content)
  }

  #later(file: FileFacts, kind: ArchiveKind, bytes: Buffer, guesses: readonly string[]): void {
    if (kind === 'tar' && !this.#counted(filesOfTar(bytes))) return
    if (!this.#budget.run()) return
    if (this.#held.take(bytes)) this.#late.push({ file, kind, bytes, guesses })
    else this.#budget.limit(`${file.path} is too large to wait for the others.`)
  }

  #gzip(file: FileFacts, bytes: Buffer): void {
    if (membersOf(bytes) > MEMBERS_MAX) {
      this.#budget.limit(`${file.path} is packed in more than ${MEMBERS_MAX} pieces.`)
      return
    }
    const content = gunzipWhole(bytes, Math.min(QUICK_BYTES, this.#budget.bytesLeft))
    if (content === null) this.#later(file, 'gzip', bytes, [])
    else this.#layer(file, 'gzip', nameInGzip(bytes), content)
  }

  #zip(file: FileFacts, bytes: Buffer): void {
    const zip = readZip(bytes, this.#budget.entriesLeft)
    for (const what of zip.broken)
      this.#found.add('ARCHIVE_BROKEN', zip.entries.length === 0 ? 8 : 4, `${file.path}: ${what}`)
    for (const what of zip.lost) this.#unreadable(`${file.path}: ${what}`)
    if (!this.#budget.entry(zip.more ? this.#budget.entriesLeft + 1 : zip.entries.length)) return
    if (zip.overlap) {
      // Unpacking would read the same bytes over and over: that is what it was made for.
      this.#budget.limit(`${file.path} has entries that overlap.`)
      return
    }
    const office = zip.entries.some(({ names }) => names.some((name) => OFFICE_PART.test(name)))
    for (const entry of zip.entries) {
      if (this.#budget.over) return
      if (entry.names.some((name) => !name.endsWith('/')))
        this.#zipEntry(this.inside(file, entry.names, office ? 'ooxml' : 'zip'), bytes, entry)
    }
    const locked = zip.entries.filter(({ encrypted }) => encrypted)
    const [first] = locked
    const guesses =
      first === undefined
        ? []
        : this.#rules
            .guesses()
            .filter((guess) => mayOpen(bytes, first, guess))
            .slice(0, ZIP_GUESSES_MAX)
    if (guesses.length > 0) this.#later(file, 'zip', bytes, guesses)
    else {
      for (const { names } of locked.slice(0, 3))
        this.#locked(`${this.inside(file, names, 'zip').path} is encrypted.`)
      const foreign = zip.entries.some(
        ({ encrypted, method }) => !encrypted && FOREIGN_METHODS.has(method),
      )
      if (foreign) this.#later(file, 'zip', bytes, [])
    }
  }

  #zipEntry(file: FileFacts, bytes: Buffer, entry: ZipEntry): void {
    this.#lookAtPath(file)
    const { method } = entry
    if (entry.encrypted || (method !== STORED && method !== DEFLATED)) {
      this.#to.named(file)
      if (!entry.encrypted && !FOREIGN_METHODS.has(method))
        this.#unreadable(`${file.path} is packed by the method ${method}, which nobody here reads.`)
      return
    }
    const sink = this.#to.sink(file, entry.sizeHint)
    const left = this.#budget.bytesLeft
    try {
      const size = unpack(bytes, entry, left, sink.take)
      // The packed bytes alone are more than may be looked at.
      if (size > left) this.#budget.count(size)
      else if (!this.#budget.over && !entry.open && differs(entry.sizeHint, sink.sizeBytes()))
        this.#found.add('ARCHIVE_BROKEN', 4, `${file.path} has another size than it says.`)
    } catch (error) {
      if (!(error instanceof ZipError)) throw error
      this.#unreadable(`${file.path}: ${error.message}`)
    }
    sink.end()
  }

  /** Names are only shown here; whoever unpacks to a disk may be led astray by them. */
  #lookAtPath(file: FileFacts): void {
    if (file.names.some((name) => ESCAPES.test(name)))
      this.#found.add(
        'ARCHIVE_PATH_ESCAPES',
        3,
        `${file.path} is to be unpacked outside its folder.`,
      )
  }

  /** Opens what waits, and what comes to wait in that. */
  async openLate(): Promise<void> {
    loading ??= Seven.load()
    const seven = await loading
    for (let late = this.#late.shift(); late !== undefined; late = this.#late.shift()) {
      if (!this.#budget.over) await this.#extract(seven, late)
      this.#held.give(late.bytes)
    }
    // The memory of each instance is garbage now, and large; nothing tells the engine so.
    Bun.gc(true)
  }

  /** Whether there is room for what an archive says it holds; it is taken only as files come out. */
  #counted(files: number): boolean {
    const needed = files * SEVEN_ENTRY
    return needed <= this.#budget.entriesLeft || this.#budget.entry(needed)
  }

  /** Whether 7-Zip may read the list of a 7z, for which it takes room before anything is unpacked. */
  async #listed(seven: Seven, { file, bytes }: Late): Promise<boolean> {
    const files = await filesInSeven(seven, bytes)
    if (files === 'endless')
      this.#budget.limit(`${file.path} has a list of files that is too long to be counted.`)
    return files !== 'endless' && this.#counted(files ?? 0)
  }

  /** Without a password first, where it may be that none is needed; then with the guesses. */
  async #extract(seven: Seven, late: Late): Promise<void> {
    const { file, kind, guesses } = late
    if (kind === '7z' && !(await this.#listed(seven, late))) return
    const tries = kind === 'zip' && guesses.length > 0 ? guesses : [null, ...guesses]
    let last: Extraction = { end: 'encrypted', words: '' }
    for (const password of tries) {
      if (last.end !== 'encrypted') break
      last = await this.#run(seven, late, password)
      if (password !== null && last.end === 'whole')
        this.#found.add(
          'ARCHIVE_PASSWORD_IN_MAIL',
          3,
          `${file.path} is encrypted, and its password stands in the mail or is a common one.`,
        )
    }
    if (last.end === 'encrypted') this.#locked(`${file.path} is encrypted.`)
    else if (last.end === 'damaged')
      this.#unreadable(
        `${file.path} cannot be read to its end${last.words === '' ? '' : ` (${plainLine(last.words, 150)})`}.`,
      )
  }

  async #run(seven: Seven, late: Late, password: string | null): Promise<Extraction> {
    const { file, bytes, kind } = late
    // To decode it left garbage of its size: away with that before more memory is taken.
    if (bytes.length >= COLLECT_BYTES) Bun.gc(true)
    const run = await seven.extract(bytes, kind, password, (name) => {
      if (!this.#budget.entry(SEVEN_ENTRY)) return null
      // What 7-Zip calls the content of a stream, which has no name in it.
      const unnamed = LAYERS.has(kind) && /^in~?(?:\.\w+)?$/.test(name)
      const inside = this.inside(file, unnamed ? layerNames(file, null) : [name], kind)
      const sink = this.#to.sink(inside, 0)
      // One file of many that is too large is no reason to leave out the others.
      if (!LAYERS.has(kind))
        return { take: (piece) => sink.take(piece) || !this.#budget.over, end: sink.end }
      // A tar in a stream is counted before it is kept.
      const tar = new TarCount()
      const take = (piece: Buffer): boolean => {
        tar.see(piece)
        return this.#counted(tar.files) && sink.take(piece)
      }
      return { take, end: sink.end }
    })
    return run.end === 'damaged' && isLocked(bytes, kind) ? { ...run, end: 'encrypted' } : run
  }
}

function filesOfTar(bytes: Buffer): number {
  const tar = new TarCount()
  tar.see(bytes)
  return tar.files
}

function differs(said: number, is: number): boolean {
  return said !== SIZE_UNSAID && said !== is
}

/** Id of the coder 7zAES in a header. */
const SEVEN_AES = Buffer.from([6, 0xf1, 7, 1])

/** Archives that hide even their list of files say so in their headers. */
function isLocked(bytes: Buffer, kind: ArchiveKind): boolean {
  if (kind === '7z') return bytes.subarray(-4_096).includes(SEVEN_AES)
  // The first block of RAR 5 behind signature, checksum and size: 4 is the encryption header.
  if (kind === 'rar5') return bytes[13] === 4 || bytes[14] === 4
  return kind === 'rar' && bytes[9] === 0x73 && ((bytes[10] ?? 0) & 0x80) !== 0
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
