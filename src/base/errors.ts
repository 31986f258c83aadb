/** The error types of the gateway. Two kinds only: expected (typed) and bugs (assert). */

/** What the caller should do next. */
export type Remedy = 'retry' | 'give-up' | 'ask-operator'

/** An expected failure. Subclasses set `name` as a field and add what the caller branches on. */
export class GatewayError extends Error {
  override name = 'GatewayError'
  readonly remedy: Remedy

  constructor(message: string, options: { remedy: Remedy; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.remedy = options.remedy
  }
}

/** The mail system cannot take responsibility for a message right now (disk, database). */
export class StoreError extends GatewayError {
  override name = 'StoreError'
}

/** For work that nobody waits for: what a store refuses is told by the store itself. @throws all else */
export function storeOnly(error: unknown): void {
  if (!(error instanceof StoreError)) throw error
}

/** Stable codes of a refusal; scripts branch on them. The HTTP status follows from the code. */
export type RefusalCode =
  | 'invalid'
  | 'notFound'
  | 'conflict'
  | 'unauthenticated'
  | 'forbidden'
  | 'locked'
  | 'unavailable'
  /** It may have been done already by somebody who cannot be asked; asked with `anyway` it is done. */
  | 'doubtful'

/**
 * An operator asked for what cannot be done. Nothing was changed. `message` and `explanation`
 * are whole sentences: what is wrong, and what to do instead.
 */
export class RefusalError extends GatewayError {
  override name = 'RefusalError'
  readonly code: RefusalCode
  /** The input field that is at fault, or null. */
  readonly field: string | null
  /** What the operator can do about it. */
  readonly advice: string

  constructor(code: RefusalCode, field: string | null, message: string, advice: string) {
    super(message, { remedy: 'ask-operator' })
    this.code = code
    this.field = field
    this.advice = advice
  }
}

/** A bug in this program. Never caught except at the edge of a connection or a job. */
export class AssertionError extends Error {
  override name = 'AssertionError'
}

/** States what must be true here; throws AssertionError when it is not. Stays on in production. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** Marks a switch as complete: the compiler proves that no case is left. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`)
}

/** The message of anything thrown, in one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.replace(/\s*[\r\n]+\s*/g, ' ')
}
