/** Verdicts of all recipients to one SMTP reply, and what becomes of each copy. Pure. */
import { assert, unreachable } from '../../base/errors.ts'
import type { MessageId } from '../../base/ids.ts'
import { type Reply, reply } from '../../message/reply.ts'
import type { AcceptState } from '../../message/rows.ts'
import type { Verdict } from '../../message/verdict.ts'
import type { Listing } from './listing.ts'

/** What happens to one recipient's copy. `none`: nothing is kept, the client has the message. */
export type Fate = 'deliver' | 'hold' | 'none'

export type Response = {
  readonly reply: Reply
  /** One a recipient, in the order of the verdicts. */
  readonly fates: readonly Fate[]
}

/**
 * One DATA has one reply. It refuses only when every recipient's verdict is reject; else a
 * refused copy is held, never bounced. One defer defers all: the client will send all again.
 * The texts tell a stranger nothing: no rule, no score, not that a copy is held. But whoever is
 * blocked by hand is told, so that an honest one asks a person.
 */
export function respond(
  id: MessageId,
  verdicts: readonly Verdict[],
  listing: Listing | null,
): Response {
  assert(verdicts.length > 0, 'a message has a recipient')
  if (verdicts.every((verdict) => verdict.kind === 'reject')) {
    const isBlocked = listing?.kind === 'block'
    const text = isBlocked
      ? 'Message refused: sender or client is on a block list'
      : 'Message refused'
    return none(reply(550, '5.7.1', text), verdicts)
  }
  if (verdicts.some((verdict) => verdict.kind === 'defer')) {
    return none(reply(451, '4.7.1', 'Try again later'), verdicts)
  }
  return { reply: reply(250, '2.0.0', id), fates: verdicts.map(fateOf) }
}

function none(answer: Reply, verdicts: readonly Verdict[]): Response {
  return { reply: answer, fates: verdicts.map(() => 'none') }
}

function fateOf({ kind }: Verdict): Fate {
  switch (kind) {
    case 'deliver':
      return 'deliver'
    case 'hold':
    case 'reject':
      return 'hold'
    case 'defer':
      return 'none'
    default:
      return unreachable(kind)
  }
}

/** As the history tells of a recipient at the door. */
export function acceptState(fate: Fate, answer: Reply): AcceptState {
  if (fate === 'deliver') return 'accepted'
  if (fate === 'hold') return 'held'
  return answer.code < 500 ? 'deferred' : 'rejected'
}
