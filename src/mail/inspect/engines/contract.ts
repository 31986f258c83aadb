/** What a scanner beside us is asked, and what it says. */
import type { Clock } from '../../../base/clock.ts'
import type { EngineLine } from '../../../config/lines.ts'
import type { Body } from '../../../message/body.ts'
import type { Envelope } from '../../../message/envelope.ts'
import type { Finding } from '../../../message/verdict.ts'

export type Question = {
  readonly body: Body
  readonly envelope: Envelope
  readonly timeoutMs: number
}

/**
 * Findings of one engine about one message; none: it says that it is clean.
 * @throws Error when it did not say so: no answer, half of one, an error of its own
 */
export type Ask = (
  line: EngineLine,
  question: Question,
  clock: Clock,
) => Promise<readonly Finding[]>

/** Known malware: held and never refused by itself, so that a person can look. */
export const VIRUS_SCORE = 12

/** The rule of a virus that `line` found. */
export function virusRule({ name }: EngineLine): string {
  return `VIRUS_${name.toUpperCase().replace(/-/g, '_')}`
}
