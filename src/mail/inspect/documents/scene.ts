/** What a look into a document may say and hand on. */
import type { Settings } from '../../../config/schema.ts'
import type { Kind } from '../kinds.ts'

export type Scene = {
  readonly settings: Settings
  /** The name of the document for evidence, one clean line. */
  readonly path: string
  /** `fact`: a whole sentence. */
  say(rule: string, score: number, fact: string): void
  /** A link that the document holds; those that go anywhere but to the web are left out. */
  url(url: string): void
  /** Passwords that stand in the mail or are common, in the order in which they are tried. */
  guesses(): readonly string[]
  /** Room for `count` rounds of hashing, of a bound for the whole message. */
  rounds(count: number): boolean
  /** A file in the document, looked at like any other. `name`: what a reader would show, or null. */
  embed(name: string | null, within: Kind, content: Buffer): void
}

/** What a file weighs that nobody can look into, as the operator says. */
export function lockedScore(settings: Settings): number {
  const { 'content.encrypted': policy } = settings
  return policy === 'hold' ? 8 : policy === 'score' ? 3 : 0
}
