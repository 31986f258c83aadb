/** All files of a message, the parts and what lies in their archives, one after another within a budget. */
import { plainLine } from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import { looksLikeZip, readZip, STORED, unpack, type ZipEntry, ZipError } from './zip.ts'

export type FileBounds = {
  /** Archives in archives; a file in a zip in the message is at depth 1. */
  readonly depthMax: number
  /** Entries of all archives of one message. */
  readonly entriesMax: number
  /** Unpacked bytes of all archives of one message. */
  readonly bytesMax: number
  /** An archive inside an archive above this size is not opened. */
  readonly nestedBytesMax: number
}

export const FILE_BOUNDS: FileBounds = {
  depthMax: 5,
  entriesMax: 10_000,
  bytesMax: 100 * 1024 * 1024,
  nestedBytesMax: 32 * 1024 * 1024,
}

export type FileFacts = {
  /** Every name that some reader would show; empty for a part without one. */
  readonly names: readonly string[]
  /** Declared type of the part; null inside archives. */
  readonly type: string | null
  /** 0 for a part, 1 for a file in its archive, and so on. */
  readonly depth: number
  /** For evidence: `invoice.zip > invoice.exe`, one clean line. */
  readonly path: string
}

/**
 * Called once a file. Returns what takes its content, piece by piece, or null for none; the
 * taker returns false when it has seen enough.
 */
export type FileLook = (file: FileFacts) => ((piece: Buffer) => boolean) | null

/** What the archives themselves say; each list holds at most a few whole sentences. */
export type ArchiveFacts = {
  readonly limits: readonly string[]
  readonly encrypted: readonly string[]
  readonly broken: readonly string[]
}

/** Shows every file of the message to `look`. Throws only what `look` throws. */
export function visitFiles(
  mail: Mail,
  look: FileLook,
  bounds: FileBounds = FILE_BOUNDS,
): ArchiveFacts {
  const visit = new Visit(look, bounds)
  for (const part of mail.leaves) {
    const path = pathOf(part.names, part.type)
    for (const content of mail.contents(part)) {
      visit.file({ names: part.names, type: part.type, depth: 0, path }, content)
    }
  }
  return visit
}

const FACTS_MAX = 3

class Visit implements ArchiveFacts {
  readonly limits: string[] = []
  readonly encrypted: string[] = []
  readonly broken: string[] = []
  readonly #look: FileLook
  readonly #bounds: FileBounds
  #entries = 0
  #bytes = 0

  constructor(look: FileLook, bounds: FileBounds) {
    this.#look = look
    this.#bounds = bounds
  }

  file(file: FileFacts, content: Buffer): void {
    this.#look(file)?.(content)
    if (looksLikeZip(content, file.names)) this.#archive(file, content)
  }

  #archive(file: FileFacts, bytes: Buffer): void {
    if (file.depth >= this.#bounds.depthMax) {
      note(this.limits, `${file.path} lies in more than ${this.#bounds.depthMax} archives.`)
      return
    }
    const zip = readZip(bytes, this.#bounds.entriesMax - this.#entries)
    this.#entries += zip.entries.length
    if (zip.more) note(this.limits, `The archives hold more than ${this.#bounds.entriesMax} files.`)
    for (const what of zip.broken) note(this.broken, `${file.path}: ${what}`)
    if (zip.overlap) {
      // Unpacking would read the same bytes over and over: that is what it was made for.
      note(this.limits, `${file.path} has entries that overlap.`)
      return
    }
    for (const entry of zip.entries) {
      if (entry.names.every((name) => name.endsWith('/'))) continue
      this.#entry(file, bytes, entry)
    }
  }

  #entry(archive: FileFacts, bytes: Buffer, entry: ZipEntry): void {
    const path = `${archive.path} > ${pathOf(entry.names, 'a file')}`
    const file: FileFacts = { names: entry.names, type: null, depth: archive.depth + 1, path }
    const take = this.#look(file)
    if (entry.encrypted) {
      note(this.encrypted, `${path} is encrypted.`)
      return
    }
    const nested = new Nested(entry.names, this.#bounds.nestedBytesMax)
    const stored = entry.method === STORED ? bytes.subarray(entry.start, entry.end) : null
    let wanted = take !== null
    const left = this.#bounds.bytesMax - this.#bytes
    try {
      const size = unpack(bytes, entry, left, (piece) => {
        if (wanted && take !== null) wanted = take(piece)
        return (stored === null && nested.take(piece)) || wanted
      })
      this.#bytes += Math.min(size, left)
      if (size > left)
        note(this.limits, `The archives hold more than ${this.#bounds.bytesMax} bytes.`)
      else if (stored !== null && looksLikeZip(stored, entry.names)) this.#archive(file, stored)
      else if (nested.tooLarge)
        note(this.limits, `${path} is an archive too large to open inside another.`)
      else if (nested.pieces.length > 0) this.#archive(file, Buffer.concat(nested.pieces))
    } catch (error) {
      if (!(error instanceof ZipError)) throw error
      note(this.broken, `${path}: ${error.message}`)
    }
  }
}

/** Keeps the content of an entry while it may be an archive itself. */
class Nested {
  pieces: Buffer[] = []
  tooLarge = false
  readonly #names: readonly string[]
  readonly #bytesMax: number
  #bytes = 0
  #kept: boolean | null = null

  constructor(names: readonly string[], bytesMax: number) {
    this.#names = names
    this.#bytesMax = bytesMax
  }

  /** True while more is needed. */
  take(piece: Buffer): boolean {
    this.#kept ??= looksLikeZip(piece, this.#names)
    if (!this.#kept || this.tooLarge) return false
    this.#bytes += piece.length
    if (this.#bytes > this.#bytesMax) {
      this.tooLarge = true
      this.pieces = []
      return false
    }
    // A copy: the unpacker may use the memory of a piece again.
    this.pieces.push(Buffer.from(piece))
    return true
  }
}

function note(facts: string[], fact: string): void {
  if (facts.length < FACTS_MAX && !facts.includes(fact)) facts.push(fact)
}

function pathOf(names: readonly string[], fallback: string): string {
  return plainLine(names[0] ?? fallback, 100)
}
