/** All files of a message, and what they say: one walk for all inspectors that ask for files. */
import type { Mail } from '../../message/mime.ts'
import type { FileFact, Finding } from '../../message/verdict.ts'
import { FILE_BOUNDS, type FileBounds } from './archives/budget.ts'
import type { Kind } from './kinds.ts'
import type { Look } from './look.ts'
import { Walk } from './walk.ts'

export type FileFacts = {
  /** Every name that some reader would show; empty for a part without one. */
  readonly names: readonly string[]
  /** Declared type of the part; null inside archives. */
  readonly type: string | null
  /** 0 for a part, 1 for a file in its archive, and so on. */
  readonly depth: number
  /** Archives around it, as the setting counts them: a packed tar is one. */
  readonly level: number
  /** Streams and disk images right around it that hold one file each. */
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
  /** The test virus, and what could not be looked into. */
  readonly eicar: readonly Finding[]
  readonly documents: readonly Finding[]
  /** Null: there are no rules of the operator. A text: why they could not be run. */
  readonly yara: readonly Finding[] | string | null
  /** At most 50, in their order. */
  readonly files: readonly FileFact[]
  /** Links that documents hold, at most 100. */
  readonly urls: readonly string[]
  /** What came out of archives and documents: the cost that is bounded. */
  readonly unpackedBytes: number
}

/** Rules of the operator, shown each whole file and the head of larger ones. */
export type Scan = {
  look(content: Buffer, path: string): void
  /** A text: why they could not be run. */
  findings(): readonly Finding[] | string
}

const walks = new WeakMap<Mail, Files | Promise<Files>>()

/**
 * The same walk for the same mail, whoever asks first. A promise only where a file needs more
 * than this process has loaded. Throws, or rejects, for all who ask: unknown, not clean.
 */
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
