/**
 * Held mail of all nodes: look at it, release it once, delete it. The node that owns it decides;
 * every other one asks it, and leaves a note for it when it does not answer.
 */
import { type Clock, isoTime } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { Calls, Standing } from '../cluster/contract.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Claim, NodeName } from '../message/rows.ts'
import type { Operators } from '../store/operators.ts'
import { HELD_STATES, type HeldEntry, type Quarantine } from '../store/quarantine.ts'
import { parseQuery } from '../store/query.ts'
import type { Trace } from '../store/trace.ts'
import { mustAct, readMessageId, unknownMessage } from './authorise.ts'
import type { Admin, Author, HeldDetail } from './contract.ts'
import { type AskOwner, ownersAsked, readSize } from './held-asks.ts'
import { decidedBefore, type HeldDecisions, placesOf } from './held-decisions.ts'

/** A preview is made of the whole message in memory. */
const PREVIEW_BYTES_MAX = 64 * 1024 * 1024

type HeldPart = Pick<
  Admin,
  'held' | 'heldOne' | 'heldPreview' | 'heldSource' | 'release' | 'deleteHeld'
>

/** The other nodes, as far as held mail is concerned. */
export type HeldPeers = Pick<Calls, 'ask' | 'fetch'> & {
  /** `member` also for a node that nobody knows. */
  readonly standing: (node: NodeId) => Standing
  /** Follows its name: `has not answered since 2026-03-11T14:30:00.000Z`. */
  readonly describe: (node: NodeId) => string
}

export type HeldDeps = {
  readonly clock: Clock
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly operators: Pick<Operators, 'audit'>
  readonly inspectors: Pick<Inspectors, 'preview'>
  readonly decisions: HeldDecisions
  readonly peers: HeldPeers
}

export function peersOf(cluster: Pick<Cluster, 'calls' | 'roster' | 'heardMs'>): HeldPeers {
  const { calls, roster } = cluster
  return {
    ask: (...question) => calls.ask(...question),
    fetch: (...question) => calls.fetch(...question),
    standing: (node) => roster.get(node)?.standing ?? 'member',
    describe: (node) => {
      const heardMs = cluster.heardMs(node)
      return heardMs === null
        ? 'has not answered since this node started'
        : `has not answered since ${isoTime(heardMs)}`
    },
  }
}

export function heldPart(deps: HeldDeps): HeldPart {
  const { clock, trace, quarantine, operators, inspectors, decisions, peers } = deps
  const askOwner: AskOwner = ownersAsked(peers)
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
  ): Promise<HeldDetail> {
    mustAct(author)
    const id = readMessageId(rawId)
    const found = entry(id)
    const { owner } = found.row
    const ask = { id, recipient: recipient ?? null, kind, by: author.name }
    if (owner.id === here) {
      await decisions.decide(ask)
      return detailOf(entry(id))
    }
    const places = recipient === undefined ? null : placesOf(found, recipient)
    const copies = found.copies.filter(({ place }) => places === null || places.includes(place))
    const open = copies.filter(({ claim }) => claim === null)
    const isUnsent = copies.some(
      ({ claim, enqueuedMs }) => claim?.kind === 'release' && enqueuedMs === null,
    )
    if (open.length === 0 && !(kind === 'release' && isUnsent)) throw decidedBefore(copies)
    if (peers.standing(owner.id) !== 'member') {
      if (kind === 'release') throw bodyLost(owner, peers.standing(owner.id))
      const claim: Claim = { kind, by: author.name, atMs: clock.wallMs() }
      decisions.tell(id, quarantine.takeOver(id, places, claim))
      operators.audit(author.name, 'held.delete', id, `of ${owner.name}`)
      return detailOf(entry(id))
    }
    const answer = await askOwner(owner.id, ask)
    if (answer === null) {
      const wanted = open.map(({ place }) => place)
      return leaveFor(owner, author, id, kind, wanted)
    }
    // Its rows are on their way; what it answered is shown already.
    const claims = new Map(answer.map(({ place, claim }) => [place, claim]))
    const after = entry(id)
    return detailOf({
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
    })
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
    if (addresses.length === 0) throw waitsAlready(owner, after, peers.describe(owner.id))
    const detail = `${kind} asked by ${author.name}, waits for ${owner.name}`
    operators.audit(author.name, 'held.ask', id, detail)
    for (const { address: recipient } of addresses) {
      trace.note(id, { atMs: clock.wallMs(), recipient, what: 'asked', detail })
    }
    return detailOf(after)
  }

  /** From its owner, wherever that is. @throws RefusalError; StoreError */
  async function openBody(found: HeldEntry): Promise<{
    readonly sizeBytes: number
    readonly pieces: AsyncIterable<Uint8Array>
  }> {
    const { id, owner } = found.row
    if (owner.id === here || found.bodyGone) return decisions.openBody(found)
    const standing = peers.standing(owner.id)
    if (standing !== 'member') throw bodyLost(owner, standing)
    try {
      const { value, bytes } = await peers.fetch(owner.id, 'held.body', { id })
      return { sizeBytes: readSize(value), pieces: bytes }
    } catch (error) {
      if (!(error instanceof RefusalError) || error.code !== 'unavailable') throw error
      throw new RefusalError(
        'unavailable',
        'id',
        `The content of this mail is on ${owner.name}, which ${peers.describe(owner.id)}.`,
        'Look again when it answers. A release or deletion can be left for it now.',
      )
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
      const { sizeBytes, pieces } = await openBody(entry(id))
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
        if (filled + piece.length > sizeBytes) throw notAsLong()
        bytes.set(piece, filled)
        filled += piece.length
      }
      if (filled < sizeBytes) throw notAsLong()
      return inspectors.preview({ kind: 'memory', bytes })
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

    release: (author, rawId, recipient) => decide(author, rawId, 'release', recipient),
    deleteHeld: (author, rawId, recipient) => decide(author, rawId, 'delete', recipient),
  }
}

export function detailOf({ row, copies }: HeldEntry): HeldDetail {
  return {
    row,
    claims: copies.flatMap(({ address, claim }) =>
      claim === null ? [] : [{ ...claim, recipient: address }],
    ),
    waits: null,
  }
}

function bodyLost(owner: NodeName, standing: Standing): RefusalError {
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
