/**
 * What the owner of a held mail does when somebody decides about it: an operator here, one at a
 * peer, or one who asked while this node was away. However it comes, the first claim stands.
 */
import { type Clock, isoTime } from '../base/clock.ts'
import { messageOf, RefusalError, StoreError } from '../base/errors.ts'
import { type MessageId, parseMessageId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { CallAnswer } from '../cluster/contract.ts'
import type { HeldNodes } from '../mail/quarantine/nodes.ts'
import type { HeldShare } from '../mail/quarantine/share.ts'
import type { HeldTakeover } from '../mail/quarantine/takeover.ts'
import type { Claim } from '../message/rows.ts'
import type { Bodies } from '../store/bodies.ts'
import type { Operators } from '../store/operators.ts'
import type {
  Asked,
  Claimed,
  Doubled,
  HeldCopy,
  HeldEntry,
  Quarantine,
} from '../store/quarantine.ts'
import type { Trace } from '../store/trace.ts'
import { unknownMessage } from './authorise.ts'
import type { MailActions } from './mail-actions.ts'

/** To the owner of held mails, or who takes them over. */
export const DECIDE = 'held.decide'
/** Decisions in one question to a peer. */
export const ASKS_MAX = 100
/** What the queue refuses, or a peer gives back, is tried again after this. */
const RETRY_MS = 60_000

/** What somebody wants; `recipient` null: every recipient that is undecided. */
export type HeldAsk = {
  readonly id: MessageId
  readonly recipient: string | null
  readonly kind: 'release' | 'delete'
  readonly by: string
  /** Also when it could arrive twice. */
  readonly anyway: boolean
}

/** How the copies stand after it, or why nothing was done. */
export type HeldAnswer =
  | { readonly copies: readonly { readonly place: number; readonly claim: Claim }[] }
  | {
      readonly refusal: {
        readonly code: RefusalError['code']
        readonly field: string | null
        readonly message: string
        readonly advice: string
      }
    }

export type HeldDecisionsDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly bodies: Pick<Bodies, 'read'>
  readonly operators: Pick<Operators, 'audit'>
  readonly mail: Pick<MailActions, 'release' | 'hasReleased' | 'releasesResumed'>
  readonly share: Pick<HeldShare, 'around' | 'has' | 'restore' | 'body'>
  readonly takeover: Pick<HeldTakeover, 'mustStay' | 'takeFor'>
  readonly nodes: Pick<HeldNodes, 'taken'>
}

export class HeldDecisions {
  readonly #deps: HeldDecisionsDeps
  /** Copies on their way into the queue at this moment: nobody sends them a second time. */
  readonly #onTheWay = new Set<string>()
  #retries = false

  constructor(deps: HeldDecisionsDeps) {
    this.#deps = deps
  }

  /**
   * Enqueues what a stop cut off, and runs what others asked for while this node was away or before
   * it was the owner; and what comes in of that from now on.
   */
  start(): void {
    const { quarantine } = this.#deps
    quarantine.onAsked(() => void this.#runAsked())
    quarantine.onChanged((ids, origin) => {
      // What this node wrote itself comes back to it when its disk went back: a claim is among it,
      // perhaps, that has had no effect. Not at once: that it had one may come from another peer.
      if (
        origin === 'peer' &&
        quarantine.read((list) => ids.some((id) => list.ownerOf(id) === quarantine.node.id))
      )
        this.#later()
    })
    void this.#sendRest().then(() => this.#deps.mail.releasesResumed())
    void this.#runAsked()
  }

  /** Mails of this node may have work left: it took them over, or could not do it before. */
  readonly taken = (): void => {
    void this.#sendRest()
    void this.#runAsked()
  }

  /**
   * Decides about a mail of this node; a release returns when it is in the queue.
   * @throws RefusalError notFound; conflict, with the claim that stands; unavailable
   */
  async decide(ask: HeldAsk): Promise<readonly Claimed[]> {
    const claimed = this.#claimFor(ask)
    await this.#carryOut(ask, claimed)
    return claimed
  }

  /** Tells the history what was just claimed. */
  tell(id: MessageId, claimed: readonly Claimed[]): void {
    const { observer, trace } = this.#deps
    for (const { place, address: recipient, won, claim } of claimed) {
      if (!won) continue
      const { kind, by, atMs } = claim
      const what = kind === 'release' ? 'released' : 'deleted'
      const detail = `by ${by}`
      trace.outcome(id, place, what, detail, { atMs, recipient, what, detail })
      if (kind === 'delete') observer.emit('mail.deleted', { message: id, why: 'deleted', by })
    }
  }

  /** Answers `held.decide`: up to ASKS_MAX decisions, each with its own end. */
  readonly answerDecide = async (value: unknown): Promise<CallAnswer> => {
    const asks = readAsks(value)
    // One commit for all of them; what was not possible is an answer too.
    const claims = this.#deps.quarantine.together(() =>
      asks.map((ask) => refusedOr(() => this.#claimFor(ask))),
    )
    const answers = await Promise.all(
      asks.map((ask, index) => this.#answerTo(ask, claims[index] ?? [])),
    )
    return { kind: 'json', value: { answers } }
  }

  /** Answers `held.body`: the bytes of a mail of which this node has a sealed file. */
  readonly answerBody = async (value: unknown): Promise<CallAnswer> => {
    const { id, whole } = record(value)
    const known = typeof id === 'string' ? parseMessageId(id) : null
    if (known === null) throw invalid('id')
    const entry = this.#deps.quarantine.one(known)
    const isHere = entry !== null && (this.#isOwn(entry) ? !entry.bodyGone : this.hasBody(known))
    const body = isHere ? await this.#deps.share.body(known, whole === true) : null
    if (body === null) throw entry === null ? unknownMessage(known) : contentGone()
    return { kind: 'stream', ...body }
  }

  /** A sealed file of a mail of another node is here. */
  hasBody(id: MessageId): boolean {
    return this.#deps.share.has(id)
  }

  /** @throws RefusalError notFound when the content is not kept; StoreError */
  async openBody({ row, bodyGone }: HeldEntry) {
    const opened = bodyGone ? null : await this.#deps.bodies.read(row.id)
    if (opened === null) throw contentGone()
    return opened
  }

  #isOwn({ row }: HeldEntry): boolean {
    return row.owner.id === this.#deps.quarantine.node.id
  }

  /** A mail that this node decides about, because it may from now on. @throws RefusalError */
  #own(ask: HeldAsk): HeldEntry {
    const { quarantine, takeover, operators } = this.#deps
    const entry = quarantine.one(ask.id)
    if (entry === null) throw unknownMessage(ask.id)
    takeover.mustStay(ask.id)
    if (this.#isOwn(entry)) return entry
    if (!this.hasBody(ask.id)) throw unknownMessage(ask.id)
    takeover.takeFor(entry, ask)
    const after = quarantine.one(ask.id) ?? entry
    if (after.doubtMs !== null) {
      operators.audit(ask.by, 'held.takeover', ask.id, `of ${entry.row.owner.name}, in doubt`)
    }
    return after
  }

  /** Durable when it returns. @throws RefusalError; StoreError */
  #claimFor(ask: HeldAsk): readonly Claimed[] {
    const { id, recipient, kind, by } = ask
    const entry = this.#own(ask)
    const places = recipient === null ? null : placesOf(entry, recipient)
    if (kind === 'release') mustHaveBody(entry)
    return this.#claim(id, places, { kind, by, atMs: this.#deps.clock.wallMs() })
  }

  #claim(id: MessageId, places: readonly number[] | null, claim: Claim): readonly Claimed[] {
    const { quarantine, operators } = this.#deps
    return quarantine.together(() => {
      const claimed = quarantine.claim(id, places, claim)
      const won = claimed.flatMap((copy) => (copy.won ? [copy.address] : []))
      if (won.length > 0) operators.audit(claim.by, `held.${claim.kind}`, id, won.join(', '))
      return claimed
    })
  }

  /** Nothing to send and nothing won: whoever asks is told who was first. */
  async #carryOut({ id, kind }: HeldAsk, claimed: readonly Claimed[]): Promise<void> {
    // Before the queue has it: what the queue says next must not be overwritten.
    this.tell(id, claimed)
    // A release that the queue refused before is tried again by the next click.
    const copies = kind === 'release' ? this.#unsent(id, claimed) : []
    if (copies.length === 0 && !claimed.some(({ won }) => won)) throw decidedBefore(claimed)
    await this.#enqueue(id, copies)
  }

  async #answerTo(ask: HeldAsk, claimed: readonly Claimed[] | RefusalError): Promise<HeldAnswer> {
    try {
      if (claimed instanceof RefusalError) throw claimed
      await this.#carryOut(ask, claimed)
      return { copies: claimed.map(({ place, claim }) => ({ place, claim })) }
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
      const { code, field, message, advice } = error
      return { refusal: { code, field, message, advice } }
    }
  }

  /** Copies whose release is decided, and that neither are in the queue nor on their way. */
  #unsent(id: MessageId, claimed: readonly Claimed[]): readonly Claimed[] {
    return claimed.filter(
      ({ claim, enqueued, place }) =>
        claim.kind === 'release' && !enqueued && !this.#onTheWay.has(`${id}.${place}`),
    )
  }

  async #enqueue(id: MessageId, copies: readonly Claimed[]): Promise<void> {
    if (copies.length === 0) return
    const { mail, quarantine, share, nodes } = this.#deps
    const keys = copies.map(({ place }) => `${id}.${place}`)
    for (const key of keys) this.#onTheWay.add(key)
    try {
      this.#tellQueued(id, copies)
      // Who could take the mail over must know of it before it goes (design: mail.md).
      await nodes.taken(share.around(id))
      const open = this.#stillOpen(id, copies)
      const doubted = quarantine.doubted(id, placesIn(open))
      if (quarantine.one(id)?.bodyGone) await share.restore(id)
      for (const { claim, places } of byClaim(open)) {
        await mail.release(id, places, claim)
        this.#queued(id, places, claim, doubted)
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
      for (const key of keys) this.#onTheWay.delete(key)
    }
  }

  /**
   * What the queue has already. Who took the mail over while this node was away must not hear that
   * it is back, and not that it had sent it.
   */
  #tellQueued(id: MessageId, copies: readonly Claimed[]): void {
    const { mail, quarantine } = this.#deps
    const had = copies.filter(({ place }) => mail.hasReleased(id, place))
    const doubted = quarantine.doubted(id, placesIn(had))
    for (const { claim, places } of byClaim(had)) this.#queued(id, places, claim, doubted)
  }

  /** What this node still owns and has not sent, after it waited. @throws RefusalError conflict */
  #stillOpen(id: MessageId, copies: readonly Claimed[]): readonly Claimed[] {
    const entry = this.#deps.quarantine.one(id)
    if (entry === null || !this.#isOwn(entry)) {
      throw new RefusalError(
        'conflict',
        'id',
        `${entry?.row.owner.name ?? 'Another node'} has taken this mail over meanwhile.`,
        'It gets the release, and does it unless the mail was released there.',
      )
    }
    return copies.filter(({ place }) =>
      entry.copies.some(
        (copy) =>
          copy.place === place && copy.claim?.kind === 'release' && copy.enqueuedMs === null,
      ),
    )
  }

  /** What was taken over in doubt, `doubted`, may have arrived before. @throws StoreError */
  #queued(
    id: MessageId,
    places: readonly number[],
    claim: Claim,
    doubted: readonly number[],
  ): void {
    this.#count(id, this.#deps.quarantine.markEnqueued(id, places, claim, doubted))
  }

  #count(message: MessageId, recipients: number): void {
    if (recipients > 0) this.#deps.observer.emit('held.doubted', { message, recipients })
  }

  /** Never rejects. All claims stand before the first mail goes, so two runs never meet. */
  async #runAsked(): Promise<void> {
    const { quarantine, observer } = this.#deps
    try {
      const claims = quarantine.together(() =>
        quarantine.asked().flatMap((asked) => this.#run(asked)),
      )
      for (const { id, claimed } of claims) {
        this.tell(id, claimed)
        void this.#send(id, this.#unsent(id, claimed))
      }
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      observer.emit('store.failed', { cause: messageOf(error) })
      this.#later()
    }
  }

  /** What one of them claims; nothing when it waits on. */
  #run({ id, places, claim, former }: Asked) {
    const { quarantine } = this.#deps
    const entry = quarantine.one(id)
    if (entry === null) return []
    if (former !== null) {
      const { claimed, doubled } = quarantine.merge(id, places, claim, former)
      const how = former === 'sent' ? 'had sent it too' : 'may have sent it'
      this.#tellDoubled(id, doubled, how, claim)
      return [{ id, claimed }]
    }
    // Without its body it waits on: it may be on a disk that is not mounted.
    if (claim.kind === 'release' && entry.bodyGone) return []
    return [{ id, claimed: this.#claim(id, places, claim) }]
  }

  /** A former owner had these in its queue, or may have, and so had this node, or will have. */
  #tellDoubled(id: MessageId, doubled: readonly Doubled[], how: string, claim: Claim): void {
    const { trace, clock } = this.#deps
    this.#count(id, doubled.filter(({ isCounted }) => !isCounted).length)
    const released = `released by ${claim.by} at ${isoTime(claim.atMs)}`
    const detail = `a former owner ${how}, ${released}: it may arrive twice`
    for (const { address: recipient } of doubled)
      trace.note(id, { atMs: clock.wallMs(), recipient, what: 'adopted', detail })
  }

  /** Never rejects: nobody waits for it. */
  async #send(id: MessageId, copies: readonly Claimed[]): Promise<void> {
    try {
      await this.#enqueue(id, copies)
    } catch (error) {
      if (!(error instanceof RefusalError || error instanceof StoreError)) throw error
      if (error instanceof RefusalError && error.code === 'conflict') return
      this.#deps.observer.emit('store.failed', { message: id, cause: messageOf(error) })
      this.#later()
    }
  }

  /** Releases that are decided and not known to be in the queue; never rejects. */
  async #sendRest(): Promise<void> {
    const { quarantine, observer } = this.#deps
    try {
      await Promise.all(
        quarantine.pendingReleases().map(({ id, places, claim }) => {
          const known = { address: '', won: false, claim, enqueued: false }
          const copies = places.map((place) => ({ place, ...known }))
          return this.#send(id, this.#unsent(id, copies))
        }),
      )
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      observer.emit('store.failed', { cause: messageOf(error) })
      this.#later()
    }
  }

  #later(): void {
    if (this.#retries) return
    this.#retries = true
    this.#deps.clock.after(RETRY_MS, () => {
      this.#retries = false
      this.taken()
    })
  }
}

function refusedOr<Result>(act: () => Result): Result | RefusalError {
  try {
    return act()
  } catch (error) {
    if (error instanceof RefusalError) return error
    throw error
  }
}

/** Copies that one click released, together. */
function byClaim(
  copies: readonly Claimed[],
): readonly { readonly claim: Claim; readonly places: readonly number[] }[] {
  const groups = Map.groupBy(copies, ({ claim }) => `${claim.atMs} ${claim.by}`)
  return [...groups.values()].flatMap((group) => {
    const [first] = group
    return first === undefined ? [] : [{ claim: first.claim, places: placesIn(group) }]
  })
}

function placesIn(copies: readonly Claimed[]): readonly number[] {
  return copies.map(({ place }) => place)
}

/** An address can stand twice in a message; both copies are meant. @throws RefusalError notFound */
export function placesOf({ copies }: HeldEntry, recipient: string): readonly number[] {
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

/** A release of what cannot be sent is not noted: it would be neither held nor delivered. */
function mustHaveBody({ row, copies, bodyGone }: HeldEntry): void {
  if (!bodyGone || row.holders.length > 0 || copies.every(({ claim }) => claim !== null)) return
  throw new RefusalError(
    'notFound',
    'id',
    'The content of this mail is missing on the disk of its node.',
    'When DIR/held is mounted again, restart that node; else delete the mail.',
  )
}

function contentGone(): RefusalError {
  return new RefusalError(
    'notFound',
    'id',
    'The content of this mail is not kept any more.',
    'It was released, deleted or expired; its history is still there.',
  )
}

const PAST: Readonly<Record<Claim['kind'], string>> = {
  release: 'released',
  delete: 'deleted',
  expire: 'expired',
}

export function decidedBefore(copies: readonly Pick<HeldCopy | Claimed, 'claim'>[]): RefusalError {
  const claim = copies.find((copy) => copy.claim !== null)?.claim ?? null
  if (claim === null) return unknownMessage('')
  const by = claim.kind === 'expire' ? '' : ` by ${claim.by}`
  return new RefusalError(
    'conflict',
    'id',
    `The mail was already ${PAST[claim.kind]}${by} at ${isoTime(claim.atMs)}.`,
    claim.kind === 'release'
      ? 'Search for it to see where it is.'
      : 'Ask the sender to send it again.',
  )
}

/** @throws RefusalError invalid */
function readAsks(value: unknown): readonly HeldAsk[] {
  const { asks } = record(value)
  if (!Array.isArray(asks) || asks.length > ASKS_MAX) throw invalid('asks')
  return asks.map((raw) => {
    const { id, recipient, kind, by, anyway = false } = record(raw)
    const known = typeof id === 'string' ? parseMessageId(id) : null
    if (known === null) throw invalid('id')
    if (kind !== 'release' && kind !== 'delete') throw invalid('kind')
    if (typeof by !== 'string' || by.length > 200) throw invalid('by')
    if (recipient !== null && (typeof recipient !== 'string' || recipient.length > 1_000))
      throw invalid('recipient')
    if (typeof anyway !== 'boolean') throw invalid('anyway')
    return { id: known, recipient, kind, by, anyway }
  })
}

function record(raw: unknown): Readonly<Record<string, unknown>> {
  if (typeof raw !== 'object' || raw === null) throw invalid('value')
  return raw as Readonly<Record<string, unknown>>
}

function invalid(field: string): RefusalError {
  return new RefusalError(
    'invalid',
    field,
    `A question of a peer is not valid: ${field}.`,
    'Both nodes should run the same version, or one version apart.',
  )
}
