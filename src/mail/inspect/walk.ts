/** The walk over all files of one message: parts, what lies in archives, what lies in documents. */
import { digestOf } from '../../message/digest.ts'
import { plainLine } from '../../message/header.ts'
import type { FileFact, Finding } from '../../message/verdict.ts'
import { Budget, type FileBounds } from './archives/budget.ts'
import { Held } from './archives/held.ts'
import { Archives, type FileSink } from './archives/open.ts'
import { guessesIn, SLOW_GUESSES_MAX } from './archives/passwords.ts'
import { isEicar, lookAtContent, lookAtFile, Passing } from './checks.ts'
import { lookAtDocument } from './documents/look.ts'
import { lockedScore, type Scene } from './documents/scene.ts'
import type { FileFacts, Files, Scan } from './files.ts'
import { Found } from './found.ts'
import { hiddenKinds, isMedia, type Kind, kindsOf } from './kinds.ts'
import type { Look } from './look.ts'
import { viewOf } from './view.ts'

const FILES_TOLD_MAX = 50
const URLS_MAX = 100
/** Of hashing for the passwords of documents: a second, and one document with all guesses. */
const ROUNDS_MAX = 1_300_000
/** What the body of a mail is made of. */
const WORDS: ReadonlySet<Kind> = new Set<Kind>(['html', 'mime', 'svg', 'text', 'xml'])
/** The head of a body shows whether it is words. */
const BODY_HEAD_BYTES = 600
/** Below it a file is one piece mostly. */
const SMALL_BYTES = 256 * 1024
/** Beyond it, what is of no known kind is not kept. */
const PLAIN_BYTES_MAX = 4 * 1024 * 1024
/** A name that says: one piece of several. None of them can be looked into alone. */
const PIECE =
  /\.(?:part0*(?:[2-9]|[1-9]\d+)\.rar|[rz]\d\d|(?:7z|zip|rar|tar|gz|bz2|xz)\.\d{3})[\s.]*$/i

export class Walk {
  readonly #look: Pick<Look, 'mail' | 'config'>
  readonly #attachments = new Found()
  readonly #documents = new Found()
  readonly #unseen = new Found()
  readonly #files: FileFact[] = []
  readonly #urls = new Set<string>()
  readonly #budget: Budget
  readonly #held = new Held()
  readonly #archives: Archives
  #scan: Scan | null = null
  #eicar: string | null = null
  #guesses: readonly string[] | null = null
  #roundsLeft = ROUNDS_MAX

  constructor(look: Pick<Look, 'mail' | 'config'>, bounds: FileBounds) {
    this.#look = look
    const { settings } = look.config
    this.#budget = new Budget(bounds, look.mail.raw.length, this.#unseen)
    const rules = {
      levelsMax: settings['content.archiveDepth'],
      lockedScore: lockedScore(settings),
      guesses: () => this.#guessesOf(),
    }
    this.#archives = new Archives(this.#budget, this.#held, this.#unseen, rules, {
      sink: (file, sizeHint) => this.#sink(file, sizeHint),
      whole: (file, content) => this.#whole(file, content),
      named: (file) => {
        this.#named(file)
      },
    })
  }

  /** A promise where rules of the operator, or 7-Zip, must be loaded. */
  run(): Files | Promise<Files> {
    const { yara } = this.#look.config.detection
    return Object.keys(yara).length === 0 ? this.#parts(null) : this.#withRules(yara)
  }

  async #withRules(sources: Readonly<Record<string, string>>): Promise<Files> {
    // A megabyte of WebAssembly, for those who have rules.
    const { scannerOf } = await import('./yara-rules.ts')
    const scan = await scannerOf(sources)
    this.#scan = scan
    return this.#parts(scan)
  }

  #parts(scan: Scan | null): Files | Promise<Files> {
    const { mail } = this.#look
    for (const part of mail.leaves) {
      const { names, type } = part
      const path = plainLine(names[0] ?? type, 100)
      const file = { names, type, depth: 0, level: 0, layers: 0, path, within: null, around: [] }
      const body =
        names.length === 0 && type.startsWith('text/') && part.disposition !== 'attachment'
      for (const content of mail.contents(part)) {
        if (body) this.#body(file, content)
        else this.#whole(file, content)
      }
    }
    if (this.#eicar === null && isEicar(mail.raw)) this.#eicar = 'The message itself'
    if (!this.#archives.waiting) return this.#end(scan)
    return this.#archives.openLate().then(() => this.#end(scan))
  }

  #end(scan: Scan | null): Files {
    const eicar: Finding[] =
      this.#eicar === null
        ? []
        : // A virus is held whatever else is said; not refused, so that a person sees it.
          [{ rule: 'EICAR', score: 12, evidence: `${this.#eicar} holds the test virus EICAR.` }]
    return {
      attachments: this.#attachments.list(),
      eicar: [...eicar, ...this.#unseen.list()],
      documents: this.#documents.list(),
      yara: scan === null ? null : scan.findings(),
      files: this.#files,
      urls: [...this.#urls],
      unpackedBytes: this.#budget.bytes,
    }
  }

  /** The words of the mail itself. A body that is none (a program, an archive) is a file. */
  #body(file: FileFacts, content: Buffer): void {
    if (kindsOf(content.subarray(0, BODY_HEAD_BYTES), []).some((kind) => !WORDS.has(kind))) {
      this.#whole(file, content)
      return
    }
    if (this.#eicar === null && isEicar(content)) this.#eicar = file.path
    this.#scan?.look(content, file.path)
  }

  /** A file of which all is there. */
  #whole(file: FileFacts, content: Buffer, sha256: string | null = null): void {
    if (this.#budget.over) return
    const nameScore = this.#named(file)
    if (this.#eicar === null && isEicar(content)) this.#eicar = file.path
    const kinds = kindsOf(content, file.names)
    let hash = sha256
    const hashed = (): string => {
      hash ??= digestOf(content)
      return hash
    }
    this.#tell(file, kinds, content.length, hashed)
    if (!isPiece(file, kinds)) this.#scan?.look(content, file.path)
    lookAtContent(file, kinds, nameScore, this.#attachments)
    if (file.names.some((name) => PIECE.test(name)))
      this.#unseen.add(
        'ARCHIVE_UNREADABLE',
        8,
        `${file.path} is one piece of an archive that comes in several.`,
      )
    this.#archives.open(file, kinds, content, hashed)
    if (file.names.some((name) => /\.br[\s.]*$/i.test(name)))
      this.#archives.openBrotli(file, content)
    lookAtDocument(file, kinds, content, this.#scene(file))
    this.#hidden(file, kinds, content, hashed)
  }

  /** Archives in or behind what another program takes for a picture or a document. */
  #hidden(file: FileFacts, kinds: readonly Kind[], content: Buffer, hashed: () => string): void {
    for (const { kind, at } of hiddenKinds(content, kinds)) {
      const shown = kinds.find((each) => each !== 'pe' && each !== 'elf' && each !== 'macho')
      if (shown !== undefined)
        this.#attachments.add(
          'ATTACHMENT_POLYGLOT',
          5,
          `${file.path} is ${shown} to some programs and ${kind} to others.`,
        )
      const around = [...file.around, hashed()]
      this.#archives.openAs({ ...file, around }, kind, content.subarray(at))
    }
  }

  #named(file: FileFacts): number {
    return lookAtFile(file, this.#look.config.settings['content.extensions'], this.#attachments)
  }

  #guessesOf(): readonly string[] {
    if (this.#guesses === null) {
      const { subject, text } = viewOf(this.#look.mail)
      this.#guesses = guessesIn(subject, text)
    }
    return this.#guesses
  }

  #scene(file: FileFacts): Scene {
    return {
      settings: this.#look.config.settings,
      path: file.path,
      say: (rule, score, fact) => this.#documents.add(rule, score, fact),
      url: (url) => {
        if (this.#urls.size < URLS_MAX) this.#urls.add(url)
      },
      guesses: () => this.#guessesOf().slice(0, SLOW_GUESSES_MAX),
      rounds: (count) => {
        this.#roundsLeft -= count
        return this.#roundsLeft >= 0
      },
      embed: (name, kind, content) => {
        if (!this.#archives.deeper(file)) return
        if (!this.#budget.entry() || !this.#budget.count(content.length)) return
        this.#whole(this.#archives.inside(file, name === null ? [] : [name], kind), content)
      },
    }
  }

  #tell(file: FileFacts, kinds: readonly Kind[], sizeBytes: number, hash: () => string): void {
    if (this.#files.length >= FILES_TOLD_MAX) return
    if (isPiece(file, kinds)) return
    const [type = null] = kinds
    this.#files.push({ path: plainLine(file.path, 200), type, sizeBytes, sha256: hash() })
  }

  #sink(file: FileFacts, sizeHint: number): FileSink {
    const { wholeBytesMax } = this.#budget.bounds
    const keep = this.#held.keeper(wholeBytesMax, sizeHint)
    let passing: Passing | null = null
    let size = 0
    let wanted = true
    let ended = false
    let kinds: readonly Kind[] | null = null
    const end = (): void => {
      if (ended) return
      ended = true
      if (passing?.eicar === true) this.#eicar ??= file.path
      const hash = passing?.digest() ?? null
      if (keep.whole) this.#whole(file, keep.content(), hash)
      else this.#large(file, keep.head(), size, hash ?? '')
      keep.free()
    }
    return {
      sizeBytes: () => size,
      take: (piece) => {
        if (!this.#budget.count(piece.length) || !wanted) return false
        size += piece.length
        if (passing === null && size >= SMALL_BYTES) {
          passing = new Passing()
          passing.see(keep.content())
        }
        passing?.see(piece)
        keep.take(piece)
        if (keep.whole && size < PLAIN_BYTES_MAX) return true
        // The head stays what it is from here on.
        kinds ??= kindsOf(keep.head(), file.names)
        // Much that is nothing known: zeros, measurements, backups.
        if (keep.whole && this.#scan === null && !needsWhole(kinds)) keep.drop()
        if (keep.whole) return true
        wanted = !needsWhole(kinds) || isMedia(kinds)
        if (!wanted) end()
        return wanted
      },
      end,
    }
  }

  /** A file that passed by in pieces: only its head was kept. */
  #large(file: FileFacts, head: Buffer, size: number, hash: string): void {
    const nameScore = this.#named(file)
    const kinds = kindsOf(head, file.names)
    this.#tell(file, kinds, size, () => hash)
    lookAtContent(file, kinds, nameScore, this.#attachments)
    this.#scan?.look(head, file.path)
    if (needsWhole(kinds) && !isMedia(kinds))
      this.#budget.limit(`${file.path} is too large to be looked into inside another file.`)
  }
}

/** The hundred pieces of a document are no files to whoever reads a list of them. */
function isPiece({ within }: FileFacts, kinds: readonly Kind[]): boolean {
  if (within !== 'ooxml' && within !== 'ole' && within !== 'pdf') return false
  const [kind = 'text'] = kinds
  return kind === 'text' || kind === 'xml' || isMedia(kinds)
}

/** Archives, documents, pictures: their end or their middle matters. */
function needsWhole(kinds: readonly Kind[]): boolean {
  return kinds.some((kind) => kind !== 'text' && kind !== 'xml')
}
