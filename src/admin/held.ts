/**
 * Held mail of all nodes: look at it, release it once, delete it. The node that owns it decides;
 * every other one asks it, and leaves a note for it when it does not answer.
 */
import { type Clock, isoTime } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { HeldNodes } from '../mail/quarantine/nodes.ts'
import type { HeldTakeover } from '../mail/quarantine/takeover.ts'
import type { Claim, NodeName } from '../message/rows.ts'
import type { Operators } from '../store/operators.ts'
import { HELD_FIELDS, HELD_STATES, type HeldEntry, type Quarantine } from '../store/quarantine.ts'
import { parseQuery } from '../store/query.ts'
import type { Trace } from '../store/trace.ts'
import { mustAct, readMessageId, unknownMessage } from './authorise.ts'
import type { Admin, Author, HeldDetail, HeldWaits } from './contract.ts'
import { type AskOwner, ownersAsked, readSize } from './held-asks.ts'
import { decidedBefore, type HeldAsk, type HeldDecisions, placesOf } from './held-decisions.ts'
import type { MailActions } from './mail-actions.ts'

/** A preview is made of the whole message in memory. */
const PREVIEW_BYTES_MAX = 64 * 1024 * 1024

type HeldPart = Pick<
  Admin,
  'held' | 'heldOne' | 'heldPreview' | 'heldAgain' | 'heldSource' | 'release' | 'deleteHeld'
>

export type HeldDeps = {
  readonly clock: Clock
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly operators: Pick<Operators, 'audit'>
  readonly inspectors: Pick<Inspectors, 'preview'>
  readonly mail: Pick<MailActions, 'inspectAgain'>
  readonly decisions: HeldDecisions
  readonly takeover: Pick<HeldTakeover, 'taker' | 'doubtSince'>
  readonly nodes: HeldPeers
}

/** The other nodes, and words for them. */
export type HeldPeers = Pick<HeldNodes, 'ask' | 'fetch' | 'absence' | 'ranked'> & {
  /** Follows its name: `has not answered since 2026-03-11T14:30:00.000Z`. */
  readonly describe: (node: NodeId) => string
}

export function heldPart(deps: HeldDeps): HeldPart {
  const { clock, trace, quarantine, operators, inspectors, mail, decisions, takeover, nodes } = deps
  const askOwner: AskOwner = ownersAsked(nodes)
  const here = quarantine.node.id

  function entry(id: MessageId): HeldEntry {
    const found = quarantine.one(id)
    if (found === null) throw unknownMessage(id)
    return found
  }

  async function decide(
    author: Author,
    rawId: string,
    kind: 'release' | 'delete',
    recipient: string | undefined,
    anyway: boolean,
  ): Promise<HeldDetail> {
    mustAct(author)
    const id = readMessageId(rawId)
    const found = entry(id)
    const { owner } = found.row
    const ask: HeldAsk = { id, recipient: recipient ?? null, kind, by: author.name, anyway }
    if (owner.id === here) {
      await decisions.decide(ask)
      return shown(id)
    }
    const places = recipient === undefined ? null : placesOf(found, recipient)
    const copies = found.copies.filter(({ place }) => places === null || places.includes(place))
    const open = copies.filter(({ claim }) => claim === null)
    const isUnsent = copies.some(
      ({ claim, enqueuedMs }) => claim?.kind === 'release' && enqueuedMs === null,
    )
    if (open.length === 0 && !(kind === 'release' && isUnsent)) throw decidedBefore(copies)
    const { standing } = nodes.absence(owner.id)
    if (standing === 'here' || standing === 'silent') {
      const answer = await askOwner(owner.id, ask)
      if (answer !== null) return answered(id, answer)
    }
    const isGone = standing === 'removed' || standing === 'left'
    if (isGone || standing === 'confirmed' || anyway) {
      const taker = takeover.taker(found)
      if (taker === here) {
        await decisions.decide(ask)
        return shown(id)
      }
      const answer = taker === null ? null : await askOwner(taker, ask)
      if (answer !== null) return answered(id, answer)
      if (isGone && taker === null) return withoutBody(author, found, ask, places)
    }
    const wanted = open.map(({ place }) => place)
    return leaveFor(owner, author, id, kind, wanted)
  }

  /** Nobody has its content any more: it can be deleted. */
  function withoutBody(
    author: Author,
    { row: { id, owner } }: HeldEntry,
    { kind, by }: HeldAsk,
    places: readonly number[] | null,
  ): HeldDetail {
    if (kind === 'release') throw bodyLost(owner, nodes.absence(owner.id).standing)
    const claim: Claim = { kind, by, atMs: clock.wallMs() }
    const claimed = quarantine.together(() => {
      quarantine.takeOver(id, { hasBody: false, doubt: null })
      return quarantine.claim(id, places, claim)
    })
    decisions.tell(id, claimed)
    operators.audit(author.name, 'held.delete', id, `of ${owner.name}`)
    return shown(id)
  }

  /** The rows of who answered are on their way; what it answered is shown already. */
  function answered(
    id: MessageId,
    answer: readonly { readonly place: number; readonly claim: Claim }[],
  ): HeldDetail {
    const claims = new Map(answer.map(({ place, claim }) => [place, claim]))
    const after = entry(id)
    return detailOf(
      {
        ...after,
        row: {
          ...after.row,
          recipients: after.copies.flatMap(({ place, address, claim }) =>
            claim === null && !claims.has(place) ? [address] : [],
          ),
        },
        copies: after.copies.map((copy) => ({
          ...copy,
          claim: copy.claim ?? claims.get(copy.place) ?? null,
        })),
      },
      null,
    )
  }

  function shown(id: MessageId): HeldDetail {
    const found = entry(id)
    return detailOf(found, waitsOf(found))
  }

  function waitsOf(found: HeldEntry): HeldWaits | null {
    const { owner, recipients, heldMs } = found.row
    if (owner.id === here || recipients.length === 0) return null
    const { standing, lastContactMs } = nodes.absence(owner.id)
    if (standing === 'here') return null
    const hasTaker = takeover.taker(found) !== null
    const words = `waits for ${owner.name}`
    if (standing === 'silent') {
      return { words, doubtSinceMs: hasTaker ? (lastContactMs ?? heldMs) : null }
    }
    if (standing === 'confirmed') {
      const doubtSinceMs = hasTaker ? takeover.doubtSince(found) : null
      return hasTaker && doubtSinceMs === null ? null : { words, doubtSinceMs }
    }
    if (hasTaker) return null
    return { words: `${owner.name} is gone, and nobody has its content`, doubtSinceMs: null }
  }

  function leaveFor(
    owner: NodeName,
    author: Author,
    id: MessageId,
    kind: 'release' | 'delete',
    places: readonly number[],
  ): HeldDetail {
    const fresh = quarantine.ask(id, places, kind, author.name)
    const after = entry(id)
    const addresses = after.copies.filter(({ place }) => fresh.includes(place))
    if (addresses.length === 0) throw waitsAlready(owner, after, nodes.describe(owner.id))
    const detail = `${kind} asked by ${author.name}, waits for ${owner.name}`
    operators.audit(author.name, 'held.ask', id, detail)
    for (const { address: recipient } of addresses) {
      trace.note(id, { atMs: clock.wallMs(), recipient, what: 'asked', detail })
    }
    return detailOf(after, waitsOf(after))
  }

  /** From its owner, or from any other node that has it. @throws RefusalError; StoreError */
  async function openBody(found: HeldEntry): Promise<{
    readonly sizeBytes: number
    readonly pieces: AsyncIterable<Uint8Array>
  }> {
    const { id, owner, holders } = found.row
    const isOwn = owner.id === here
    if (isOwn && (!found.bodyGone || holders.length === 0)) return decisions.openBody(found)
    if (decisions.hasBody(id)) return decisions.openBody({ ...found, bodyGone: false })
    if (found.bodyGone && found.row.recipients.length === 0) return decisions.openBody(found)
    const others = holders.map((node) => node.id).filter((node) => node !== here)
    const living = others.filter((node) => nodes.absence(node).standing === 'here')
    const { standing } = nodes.absence(owner.id)
    const isGone = standing === 'removed' || standing === 'left'
    const from = [...(isOwn || isGone ? [] : [owner.id]), ...nodes.ranked(id, living)]
    for (const node of from) {
      const body = await bodyFrom(node, id)
      if (body !== null) return body
    }
    if (isGone) throw bodyLost(owner, standing)
    throw new RefusalError(
      'unavailable',
      'id',
      `The content of this mail is on ${owner.name}, which ${nodes.describe(owner.id)}.`,
      'Look again when it answers. A release or deletion can be left for it now.',
    )
  }

  /** Null: it does not answer. */
  async function bodyFrom(node: NodeId, id: MessageId) {
    try {
      const { value, bytes } = await nodes.fetch(node, 'held.body', { id })
      return { sizeBytes: readSize(value), pieces: bytes }
    } catch (error) {
      if (error instanceof RefusalError && error.code === 'unavailable') return null
      throw error
    }
  }

  /** @throws RefusalError unavailable, when nobody has it or it is too large to be looked at */
  async function wholeOf(id: MessageId): Promise<Uint8Array> {
    const { sizeBytes, pieces } = await openBody(entry(id))
    if (sizeBytes > PREVIEW_BYTES_MAX) {
      throw new RefusalError(
        'unavailable',
        'id',
        `The mail has ${Math.round(sizeBytes / 1_048_576)} MB, too many to be looked at.`,
        'Download its source instead.',
      )
    }
    const bytes = Buffer.allocUnsafe(sizeBytes)
    let filled = 0
    for await (const piece of pieces) {
      if (filled + piece.length > sizeBytes) throw notAsLong()
      bytes.set(piece, filled)
      filled += piece.length
    }
    if (filled < sizeBytes) throw notAsLong()
    return bytes
  }

  return {
    held({ text, limit, cursor }) {
      const query = parseQuery(text, clock.wallMs(), HELD_STATES, HELD_FIELDS)
      const found = quarantine.search(query, { limit, cursor })
      return { ...found, words: query.words, mistakes: query.mistakes }
    },

    heldOne: (rawId) => shown(readMessageId(rawId)),

    async heldPreview(rawId) {
      const id = readMessageId(rawId)
      return inspectors.preview({ kind: 'memory', bytes: await wholeOf(id) })
    },

    async heldAgain(rawId) {
      const id = readMessageId(rawId)
      const { row } = entry(id)
      const bytes = await wholeOf(id)
      return await mail.inspectAgain(row, bytes, trace.message(id).judgement)
    },

    async heldSource(rawId) {
      const { sizeBytes, pieces } = await openBody(entry(readMessageId(rawId)))
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

    release: (author, rawId, recipient, anyway = false) =>
      decide(author, rawId, 'release', recipient, anyway),
    deleteHeld: (author, rawId, recipient) => decide(author, rawId, 'delete', recipient, false),
  }
}

function detailOf({ row, copies }: HeldEntry, waits: HeldWaits | null): HeldDetail {
  return {
    row,
    claims: copies.flatMap(({ address, claim }) =>
      claim === null ? [] : [{ ...claim, recipient: address }],
    ),
    waits,
  }
}

function bodyLost(owner: NodeName, standing: string): RefusalError {
  return new RefusalError(
    'unavailable',
    'id',
    `The content of this mail was only on ${owner.name}, which ${
      standing === 'left' ? 'has left the cluster' : 'was removed from the cluster'
    }.`,
    'Ask the sender to send it again; delete it here.',
  )
}

function waitsAlready(owner: NodeName, { row }: HeldEntry, why: string): RefusalError {
  const [first] = row.pending
  const asked =
    first === undefined
      ? 'The release is noted there'
      : `${first.kind === 'release' ? 'Release' : 'Deletion'} was already asked for by ${first.by} at ${isoTime(first.atMs)}`
  return new RefusalError(
    'conflict',
    'id',
    `${asked}; it waits for ${owner.name}, which ${why}.`,
    `${owner.name} does it when it is back.`,
  )
}

function notAsLong(): RefusalError {
  return new RefusalError(
    'unavailable',
    'id',
    'The content of this mail did not arrive whole.',
    'Try again.',
  )
}
