/** Brings released copies back into the queue, by the same door as fresh mail, exactly once. */
import type { Clock } from '../../base/clock.ts'
import { StoreError } from '../../base/errors.ts'
import type { MessageId } from '../../base/ids.ts'
import type { Claim } from '../../message/rows.ts'
import { NO_FACTS } from '../../message/verdict.ts'
import type { Bodies } from '../../store/bodies.ts'
import type { Queue } from '../../store/queue.ts'
import { freshRecipient, isFinal, type Message, type NewCommit } from '../../store/queued.ts'

export type ReleaseDeps = {
  readonly bodies: Pick<Bodies, 'read'>
  readonly queue: Queue
  readonly clock: Clock
  /** How long a released message may wait for its next hop, ms. */
  readonly expireMs: () => number
  /** Plans the delivery of what is queued now. */
  readonly enqueued: (message: Message) => void
}

/** The queue has a copy that was held, or had it: nothing has to put it there. */
export function hasReleased(queue: Queue, id: MessageId, place: number): boolean {
  const fate = queue.fate(id)
  const ended = fate?.owner === queue.node ? (fate.states[place] ?? null) : null
  const known = queue.get(id)?.recipients[place]?.state
  const state = known ?? queue.replayedState(id, place) ?? ended
  return state !== null && state !== 'held'
}

/**
 * Puts the copies at `places` into the queue; durable when this resolves. The claim is durable
 * already, so after a crash this is asked again: what the spool knows as queued or delivered is
 * not queued twice.
 * @throws StoreError when the held bytes are gone or damaged, or the spool cannot take them
 */
export async function release(
  id: MessageId,
  claimed: readonly number[],
  claim: Claim,
  deps: ReleaseDeps,
): Promise<void> {
  const { queue } = deps
  const queued = queue.get(id)
  const copy = queue.copy(id)
  const places = claimed.filter((place) => {
    if (hasReleased(queue, id, place)) return false
    // In a copy: the owner before had it in its queue, and whoever adopts that delivers it.
    const state = queued === null ? copy?.recipients[place]?.state : undefined
    return state === undefined || state === 'held'
  })
  if (places.length === 0) return
  if (queued !== null && queued.pieces.length > 0) {
    return await requeue(queued, places, claim, deps)
  }
  if (copy?.recipients.some(({ state }) => state !== 'held' && !isFinal(state))) {
    throw new StoreError(`The other recipients of ${id} wait with another node still`, {
      remedy: 'retry',
    })
  }
  const held = await deps.bodies.read(id)
  if (held === null) {
    throw new StoreError(`The held message ${id} is not on this node any more.`, {
      remedy: 'give-up',
    })
  }
  const draft = deps.queue.draft(id)
  const hasher = new Bun.CryptoHasher('sha256')
  for await (const piece of held.pieces) {
    hasher.update(piece)
    draft.add(piece)
  }
  const { envelope, prepend, cuts, row } = held.mail
  const commit: NewCommit = {
    envelope,
    prepend,
    sizeBytes: held.sizeBytes,
    sha256: hasher.digest('hex'),
    expiresMs: deps.clock.wallMs() + deps.expireMs(),
    ...(cuts === undefined ? {} : { cuts }),
    facts: { ...NO_FACTS, subject: row.subject, from: row.from },
    verdicts: [],
    judgement: null,
    dsn: false,
    heldMoved: true,
    // What this release does not concern was delivered or stays held elsewhere.
    recipients: envelope.recipients.map((_, place) =>
      freshRecipient(
        places.includes(place) ? 'queued' : held.mail.places.includes(place) ? 'held' : 'done',
      ),
    ),
  }
  deps.enqueued(await deps.queue.commit(draft, commit, null))
}

/** The message still waits for other recipients: its bytes are in the spool. */
async function requeue(
  message: Message,
  places: readonly number[],
  claim: Claim,
  deps: ReleaseDeps,
): Promise<void> {
  const nowMs = deps.clock.wallMs()
  deps.queue.mark('defer', message, places, {
    at: nowMs,
    attempts: 0,
    reply: `released by ${claim.by}`,
  })
  // In the same step: a copy of its COMMIT that is written meanwhile would say that it is held.
  for (const place of places) {
    const recipient = message.recipients[place]
    if (recipient === undefined) continue
    recipient.state = 'deferred'
    recipient.nextTryMs = nowMs
  }
  await deps.queue.synced()
  deps.enqueued(message)
}
