/** Held mail: look at it, release it once, delete it. */
import { type Clock, isoTime } from '../base/clock.ts'
import { messageOf, RefusalError, StoreError } from '../base/errors.ts'
import type { MessageId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Claim } from '../message/rows.ts'
import type { Bodies } from '../store/bodies.ts'
import type { Operators } from '../store/operators.ts'
import { type Claimed, HELD_STATES, type HeldEntry, type Quarantine } from '../store/quarantine.ts'
import { parseQuery } from '../store/query.ts'
import type { Trace } from '../store/trace.ts'
import { mustAct, readMessageId, unknownMessage } from './authorise.ts'
import type { Admin, Author, HeldDetail } from './contract.ts'
import type { MailActions } from './mail-actions.ts'

/** A preview is made of the whole message in memory. */
const PREVIEW_BYTES_MAX = 64 * 1024 * 1024

type HeldPart = Pick<
  Admin,
  'held' | 'heldOne' | 'heldPreview' | 'heldSource' | 'release' | 'deleteHeld'
>

export type HeldDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly bodies: Bodies
  readonly operators: Operators
  readonly inspectors: Pick<Inspectors, 'preview'>
  readonly mail: MailActions
}

export function heldPart(deps: HeldDeps): HeldPart {
  const { clock, observer, trace, quarantine, bodies, operators, inspectors, mail } = deps
  /** Copies on their way into the queue at this moment: nobody sends them a second time. */
  const onTheWay = new Set<string>()

  function entry(id: MessageId): HeldEntry {
    const found = quarantine.one(id)
    if (found === null) throw unknownMessage(id)
    return found
  }

  function decide(author: Author, rawId: string, kind: 'release' | 'delete', recipient?: string) {
    mustAct(author)
    const id = readMessageId(rawId)
    const places = recipient === undefined ? null : placesOf(entry(id), recipient)
    const claim: Claim = { kind, by: author.name, atMs: clock.wallMs() }
    const claimed = quarantine.claim(id, places, claim)
    if (claimed.length === 0) throw unknownMessage(rawId)
    const won = claimed.filter((copy) => copy.won)
    if (won.length > 0) {
      const addresses = won.map(({ address }) => address).join(', ')
      operators.audit(author.name, `held.${kind}`, id, addresses)
      for (const { place, address } of won) {
        // Before the queue has it: what the queue says next must not be overwritten.
        trace.outcome(id, place, kind === 'release' ? 'released' : 'deleted', `by ${claim.by}`, {
          atMs: claim.atMs,
          recipient: address,
          what: kind === 'release' ? 'released' : 'deleted',
          detail: `by ${claim.by}`,
        })
      }
    }
    return { id, claimed, won }
  }

  /** Copies whose release is decided, and that neither are in the queue nor on their way. */
  function unsent(id: MessageId, claimed: readonly Claimed[]): readonly Claimed[] {
    return claimed.filter(
      ({ claim, enqueued, place }) =>
        claim.kind === 'release' && !enqueued && !onTheWay.has(`${id}.${place}`),
    )
  }

  async function enqueue(id: MessageId, copies: readonly Claimed[]): Promise<void> {
    const keys = copies.map(({ place }) => `${id}.${place}`)
    for (const key of keys) onTheWay.add(key)
    try {
      for (const { claim, places } of byClaim(copies)) {
        await mail.release(id, places, claim)
        quarantine.markEnqueued(id, places)
      }
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      throw new RefusalError(
        'unavailable',
        'id',
        `The release is noted, and the queue cannot take the mail now: ${messageOf(error)}.`,
        'Release it again when that is mended; the next start of the node does it by itself.',
      )
    } finally {
      for (const key of keys) onTheWay.delete(key)
    }
  }

  return {
    held({ text, limit, cursor }) {
      const query = parseQuery(text, clock.wallMs(), HELD_STATES)
      const found = quarantine.search(query, { limit, cursor })
      return { ...found, words: query.words, mistakes: query.mistakes }
    },

    heldOne: (rawId) => detailOf(entry(readMessageId(rawId))),

    async heldPreview(rawId) {
      const id = readMessageId(rawId)
      const { sizeBytes, pieces } = await openBody(bodies, entry(id))
      if (sizeBytes > PREVIEW_BYTES_MAX) {
        throw new RefusalError(
          'unavailable',
          'id',
          `The mail has ${Math.round(sizeBytes / 1_048_576)} MB, too many for a preview.`,
          'Download its source instead.',
        )
      }
      const bytes = Buffer.allocUnsafe(sizeBytes)
      let filled = 0
      for await (const piece of pieces) {
        bytes.set(piece, filled)
        filled += piece.length
      }
      return inspectors.preview({ kind: 'memory', bytes })
    },

    async heldSource(rawId) {
      const { sizeBytes, pieces } = await openBody(bodies, entry(readMessageId(rawId)))
      const iterator = pieces[Symbol.asyncIterator]()
      const stream = new ReadableStream<Uint8Array>(
        {
          async pull(controller) {
            const { done, value } = await iterator.next()
            if (done === true) controller.close()
            else controller.enqueue(value)
          },
          async cancel() {
            await iterator.return?.()
          },
        },
        // Nothing is read ahead: a stream that nobody takes opens no file.
        { highWaterMark: 0 },
      )
      return { stream, sizeBytes }
    },

    async release(author, rawId, recipient) {
      const { id, claimed, won } = decide(author, rawId, 'release', recipient)
      // A release that the queue refused before is tried again by the next click.
      const copies = unsent(id, claimed)
      if (won.length === 0 && copies.length === 0) throw decidedBefore(claimed)
      await enqueue(id, copies)
      return detailOf(entry(id))
    },

    async deleteHeld(author, rawId, recipient) {
      const { id, claimed, won } = decide(author, rawId, 'delete', recipient)
      if (won.length === 0) throw decidedBefore(claimed)
      for (const { claim } of won) {
        observer.emit('mail.deleted', { message: id, why: 'deleted', by: claim.by })
      }
      return detailOf(entry(id))
    },
  }
}

/** Copies that one click released, together. */
function byClaim(
  copies: readonly Claimed[],
): readonly { readonly claim: Claim; readonly places: readonly number[] }[] {
  const groups = Map.groupBy(copies, ({ claim }) => `${claim.atMs} ${claim.by}`)
  return [...groups.values()].flatMap((group) => {
    const [first] = group
    return first === undefined
      ? []
      : [{ claim: first.claim, places: group.map(({ place }) => place) }]
  })
}

export function detailOf({ row, copies }: HeldEntry): HeldDetail {
  return {
    row,
    claims: copies.flatMap(({ address, claim }) =>
      claim === null ? [] : [{ ...claim, recipient: address }],
    ),
  }
}

async function openBody(bodies: Bodies, { row, bodyGone }: HeldEntry) {
  const opened = bodyGone ? null : await bodies.read(row.id)
  if (opened !== null) return opened
  throw new RefusalError(
    'notFound',
    'id',
    'The content of this mail is not kept any more.',
    'It was released, deleted or expired; its history is still there.',
  )
}

/** An address can stand twice in a message; both copies are meant. @throws RefusalError notFound */
function placesOf({ copies }: HeldEntry, recipient: string): readonly number[] {
  const wanted = recipient.trim().toLowerCase()
  const places = copies.filter(({ address }) => address.toLowerCase() === wanted)
  if (places.length > 0) return places.map(({ place }) => place)
  throw new RefusalError(
    'notFound',
    'recipient',
    `No copy of this mail was held for ${JSON.stringify(recipient.slice(0, 254))}.`,
    'Choose one of the recipients that are listed.',
  )
}

const PAST: Readonly<Record<Claim['kind'], string>> = {
  release: 'released',
  delete: 'deleted',
  expire: 'expired',
}

function decidedBefore(claimed: readonly Claimed[]): RefusalError {
  const [{ claim }] = claimed as readonly [Claimed]
  const what = PAST[claim.kind]
  const by = claim.kind === 'expire' ? '' : ` by ${claim.by}`
  return new RefusalError(
    'conflict',
    'id',
    `The mail was already ${what}${by} at ${isoTime(claim.atMs)}.`,
    claim.kind === 'release'
      ? 'Search for it to see where it is.'
      : 'Ask the sender to send it again.',
  )
}
