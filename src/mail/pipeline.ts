/**
 * The path of a mail, in order. The only file that knows all stages: accept, keep, inspect,
 * decide, hold or queue, deliver, bounce.
 */
import { type Clock, pause } from '../base/clock.ts'
import { messageOf, StoreError } from '../base/errors.ts'
import { type MessageId, type NodeId, parseMessageId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type { Tally } from '../base/tally.ts'
import type { LiveConfig } from '../config/live.ts'
import { changedDomains, type Snapshot } from '../config/snapshot.ts'
import { parseAddress } from '../message/address.ts'
import type { Body } from '../message/body.ts'
import { envelopeAgain } from '../message/envelope.ts'
import { countReceived, receivedField } from '../message/received.ts'
import { formatReply, type Reply, reply } from '../message/reply.ts'
import type {
  Claim,
  DeliveryState,
  HeldRow,
  Judgement,
  NewTraceRow,
  NodeName,
  QueueRow,
} from '../message/rows.ts'
import {
  type Inspection,
  NO_FACTS,
  NO_INSIGHT,
  NOTHING_ONWARD,
  type Verdict,
} from '../message/verdict.ts'
import type { Bodies } from '../store/bodies.ts'
import type { Tenure } from '../store/copies.ts'
import type { Draft } from '../store/draft.ts'
import { type Greylist, greyNetwork } from '../store/greylist.ts'
import type { Quarantine } from '../store/quarantine.ts'
import { AloneError, type Queue } from '../store/queue.ts'
import { freshRecipient, type Message } from '../store/queued.ts'
import type { Spool } from '../store/spool.ts'
import type { Trace } from '../store/trace.ts'
import type { Arrival, Incoming, Receiver } from './accept/receive.ts'
import { decide } from './decide/decide.ts'
import { greylistAfter } from './decide/greylist.ts'
import { authorOf, judge } from './decide/judgement.ts'
import { type Listing, listingOf } from './decide/listing.ts'
import { weigh } from './decide/outcome.ts'
import { policyFor } from './decide/policy.ts'
import { acceptState, type Fate, respond } from './decide/respond.ts'
import { tagFields } from './decide/tag.ts'
import { buildBounce, mayBounce } from './deliver/bounce.ts'
import type { Deliverer } from './deliver/contract.ts'
import { routeKey, routeOf } from './deliver/route.ts'
import { joinInsight } from './inspect/answers.ts'
import type { Inspectors } from './inspect/contract.ts'
import type { InspectConfig } from './inspect/look.ts'
import { domainOf } from './inspect/urls.ts'
import { Holder, type HolderDeps } from './quarantine/hold.ts'
import { Keeper } from './quarantine/keep.ts'
import { hasReleased, type ReleaseDeps, release } from './quarantine/release.ts'
import type { HeldShare } from './quarantine/share.ts'
import { type BuiltNotice, type Notice, notify } from './queue/notify.ts'
import { QueueList, type QueuePart, type QueueQuery } from './queue/page.ts'
import { type Dots, type Progress, QueueWorker } from './queue/worker.ts'
import type { Signatures } from './signatures.ts'

export type PipelineDeps = {
  readonly hostname: string
  readonly clock: Clock
  readonly random: Random
  readonly observer: Observer
  readonly live: LiveConfig
  readonly spool: Spool
  readonly queue: Queue
  readonly bodies: Bodies
  readonly quarantine: Quarantine
  readonly trace: Trace
  readonly inspectors: Inspectors
  /** What inspectors are told of the configuration: the same object as long as nothing changed. */
  readonly inspectConfig: (snapshot: Snapshot) => InspectConfig
  /** Signs mail that goes out; none: nobody has a key. */
  readonly signatures?: Signatures
  readonly deliverer: Deliverer
  /** As lists show a node. */
  readonly nodeName: (node: NodeId) => NodeName
  /** Whether this node may act on a message now; null: always. */
  readonly tenure?: Tenure | null
  /** What the other nodes know of next hops; without it this one is alone. */
  readonly tally?: Tally
  /** Who is known; without it nobody is asked to come again. */
  readonly greylist?: Pick<Greylist, 'askAs'>
  /** Told of held mail of other nodes; none without others. */
  readonly share?: Pick<HeldShare, 'sealed'>
  /** How long a deleted body is kept, ms; 10 minutes unless times are shrunk. */
  readonly deletedMs?: number
}

const DELETED_MS = 10 * 60_000

const NO_INSPECTION: Inspection = { findings: [], unknowns: [], facts: NO_FACTS }
/** The inspector that is asked of all mail that goes out, whatever the settings. */
const SIGNING = 'signing'
const NO_ROOM = reply(452, '4.3.1', 'Insufficient system storage')
const TRY_LATER = reply(451, '4.3.0', 'Local error, try again later')
/** `cluster.copies` is `require`, and no other node has acknowledged a copy. */
const ALONE = reply(451, '4.4.0', 'No second copy could be made, try again later')

function greylisted(waitMs: number): Reply {
  const seconds = Math.ceil(waitMs / 1_000)
  return reply(451, '4.7.1', `Greylisted: try again in ${seconds} s, at any of our hosts`)
}

export class Pipeline {
  readonly #deps: PipelineDeps
  readonly #worker: QueueWorker
  readonly #list: QueueList
  readonly #holder: Holder
  readonly #keeper: Keeper
  readonly #releases: ReleaseDeps

  constructor(deps: PipelineDeps) {
    this.#deps = deps
    const { queue, live, clock, random, observer, bodies, quarantine, trace } = deps
    this.#worker = new QueueWorker({
      queue,
      live,
      clock,
      random,
      observer,
      routeKey: (address) => routeKey(routeOf(address, live.current)),
      attempt: (message, indexes, dots) => this.#attempt(message, indexes, dots),
      bounce: (message, kind, about) => this.#bounce({ message, kind, about }),
      progress: (message, index, what, detail) => this.#progress(message, index, what, detail),
      nodeName: deps.nodeName,
      ...(deps.tally === undefined ? {} : { tally: deps.tally }),
      tenure: deps.tenure ?? null,
    })
    const sealed: HolderDeps['sealed'] = (mail) => deps.share?.sealed(mail)
    this.#list = new QueueList({
      queue,
      nodeName: deps.nodeName,
      row: (message) => this.#worker.row(message),
    })
    this.#holder = new Holder({ bodies, quarantine, queue, live, clock, observer, sealed })
    this.#keeper = new Keeper({
      bodies,
      deletedMs: deps.deletedMs ?? DELETED_MS,
      quarantine,
      trace,
      live,
      clock,
      observer,
      expired: (id, places) => {
        for (const place of places) this.#told(id, place, 'expired', 'nobody released it in time')
      },
    })
    this.#releases = {
      bodies,
      queue,
      clock,
      expireMs: () => live.current.settings['queue.expire'] * 3_600_000,
      enqueued: (message) => this.#worker.add(message),
    }
    queue.onOwned((messages) => {
      for (const message of messages) this.#holder.hold(message)
      this.#worker.takeUp(messages)
    })
    // On whichever node a next hop was mended: what waits for it here is due now.
    live.onChange((next, before) => this.#retryDomains(changedDomains(next, before)))
  }

  /** What a crash or a stop cut off goes on: held copies, deliveries. Once, at start. */
  async resume(): Promise<void> {
    this.#holder.resume()
    this.#worker.resume()
    this.#keeper.start()
  }

  /** While on, no attempt begins: the node drains. */
  rest(on: boolean): void {
    this.#worker.rest(on)
  }

  /** Attempts under way. */
  get attempts(): number {
    return this.#worker.running
  }

  /** No new attempt; resolves when what runs has ended, or after `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    const rest = Promise.all([this.#worker.stop(), this.#holder.stop(), this.#keeper.stop()])
    await Promise.race([rest, pause(this.#deps.clock, graceMs)])
  }

  // A mail in: accept > keep > inspect > decide > hold or queue > 250.

  readonly receiver: Receiver = {
    refusal: (sizeBytes) => {
      if (this.#deps.queue.hasRoom(sizeBytes)) return null
      this.#deps.observer.emit('spool.refused', { cause: 'no room' })
      return NO_ROOM
    },
    begin: (id) => this.#begin(id),
    refused: (row) => {
      const { trace } = this.#deps
      trace.record([{ ...row, ...NOTHING_MORE }], [], null)
    },
  }

  #begin(id: MessageId): Incoming {
    const { queue, spool } = this.#deps
    const draft = queue.draft(id)
    const hasher = new Bun.CryptoHasher('sha256')
    let hops = 0
    return {
      block: () => draft.block(),
      piece: (bytes) => {
        if (draft.records.length === 0) hops = countReceived(bytes)
        hasher.update(bytes)
        draft.add(bytes, true)
        return !spool.isBehind
      },
      onDrained: (run) => spool.onDrain(run),
      end: async (arrival) => {
        if (arrival.isWhole) hops = countReceived(arrival.last)
        hasher.update(arrival.last)
        return await this.#accept(draft, arrival, hasher.digest('hex'), hops)
      },
      abort: () => draft.abort(),
    }
  }

  async #accept(draft: Draft, arrival: Arrival, sha256: string, hops: number): Promise<Reply> {
    const { settings } = arrival.snapshot
    if (hops > settings['mail.hops']) {
      return this.#end(
        draft,
        arrival,
        NO_INSPECTION,
        [],
        reply(554, '5.4.6', 'Too many hops: a mail loop'),
      )
    }
    let inspection: Inspection
    try {
      // A whole body is written with its COMMIT; the rest of a large one before it is inspected.
      if (!arrival.isWhole && arrival.last.length > 0) draft.add(arrival.last, true)
      inspection = await this.#inspect(draft, arrival, sha256)
    } catch (error) {
      return this.#end(draft, arrival, NO_INSPECTION, [], this.#storeRefusal(error))
    }
    const { envelope, snapshot } = arrival
    const listing = listingOf(
      snapshot.lists,
      envelope,
      inspection.facts,
      inspection.insight ?? NO_INSIGHT,
    )
    const verdicts = envelope.recipients.map(({ address }) =>
      decide(inspection, policyFor(snapshot, address), listing),
    )
    const response = respond(arrival.id, verdicts, listing)
    if (listing !== null) {
      inspection = { ...inspection, findings: [listing.finding, ...inspection.findings] }
    }
    if (response.fates.every((fate) => fate === 'none')) {
      return this.#end(draft, arrival, inspection, verdicts, response.reply)
    }
    const waitMs = this.#greylisted(arrival, inspection, verdicts, listing)
    if (waitMs > 0) return this.#end(draft, arrival, inspection, verdicts, greylisted(waitMs))
    try {
      const signatures = await this.#sign(arrival, inspection)
      if (arrival.isWhole) draft.add(arrival.last)
      const message = await this.#commit(
        draft,
        arrival,
        inspection,
        verdicts,
        response.fates,
        sha256,
        signatures,
      )
      // From here on the message is ours (RFC 5321 section 6.1).
      this.#record(arrival, inspection, verdicts, response.fates, response.reply)
      this.#holder.hold(message)
      this.#worker.add(message)
      return response.reply
    } catch (error) {
      return this.#end(draft, arrival, inspection, verdicts, this.#storeRefusal(error))
    }
  }

  /** Ms after which this message may come again; 0: now. */
  #greylisted(
    { envelope, snapshot, clientName = null }: Arrival,
    { insight }: Inspection,
    verdicts: readonly Verdict[],
    listing: Listing | null,
  ): number {
    const { greylist } = this.#deps
    if (greylist === undefined) return 0
    const { settings } = snapshot
    const questions = greylistAfter({
      settings,
      envelope,
      clientName,
      ...(insight === undefined ? {} : { insight }),
      verdicts,
      listing,
      networkOf: greyNetwork,
      domainOf,
    })
    const waits = questions.map(({ names, sender, recipient }) =>
      greylist.askAs(names, sender, recipient, settings),
    )
    return Math.max(0, ...waits)
  }

  async #inspect(draft: Draft, arrival: Arrival, sha256: string): Promise<Inspection> {
    const { findings = [], iprev = null, snapshot } = arrival
    const inspection = await this.#look(draft, arrival, sha256)
    const all = [...findings, ...inspection.findings]
    const weighed = { ...inspection, findings: weigh(all, snapshot.detection) }
    if (iprev === null) return weighed
    const insight = joinInsight(inspection.insight ?? NO_INSIGHT, { authentication: [iprev] })
    return { ...weighed, insight }
  }

  async #look(draft: Draft, arrival: Arrival, sha256: string): Promise<Inspection> {
    const { settings } = arrival.snapshot
    const config = this.#deps.inspectConfig(arrival.snapshot)
    const usual = settings['inspect.inspectors']
    const isSigned = arrival.envelope.outbound && Object.keys(config.signing).length > 0
    const names = isSigned ? [...usual, SIGNING] : usual
    if (names.length === 0 && settings['engines.list'].length === 0) return NO_INSPECTION
    const body: Body = arrival.isWhole
      ? { kind: 'memory', bytes: arrival.last }
      : { kind: 'extents', extents: await draft.extents(), sizeBytes: arrival.sizeBytes }
    return await this.#deps.inspectors.inspect({
      envelope: arrival.envelope,
      body,
      inspectors: names,
      config,
      clientName: arrival.clientName ?? null,
      sha256,
      budgetMs: settings['inspect.budget'] * 1_000,
    })
  }

  /** Header fields with signatures of ours; empty without one. */
  async #sign({ envelope }: Arrival, { onward }: Inspection): Promise<string> {
    const { signatures, observer } = this.#deps
    if (signatures === undefined || onward === undefined || onward.toSign.length === 0) return ''
    return await signatures.fields(onward.toSign, ({ domain, selector }) =>
      observer.emit('mail.unsigned', { message: envelope.id, domain, selector }),
    )
  }

  #commit(
    draft: Draft,
    { envelope, last, isWhole, sizeBytes, snapshot }: Arrival,
    inspection: Inspection,
    verdicts: readonly Verdict[],
    fates: readonly Fate[],
    sha256: string,
    signatures: string,
  ): Promise<Message> {
    const isHeld = fates.includes('hold')
    const { cuts, fields } = inspection.onward ?? NOTHING_ONWARD
    const { settings } = snapshot
    return this.#deps.queue.commit(
      draft,
      {
        envelope,
        // Not on what is held: a mail that somebody releases is wanted.
        prepend: `${receivedField(envelope, this.#deps.hostname)}${isHeld ? '' : tagFields(verdicts, settings['policy.tag'])}${signatures}${fields}`,
        ...(cuts.length === 0 ? {} : { cuts }),
        sizeBytes,
        sha256,
        expiresMs: envelope.receivedMs + settings['queue.expire'] * 3_600_000,
        facts: inspection.facts,
        verdicts: isHeld ? verdicts : [],
        judgement: isHeld
          ? judge(inspection, verdicts, snapshot, authorOf(envelope, inspection, settings))
          : null,
        dsn: false,
        heldMoved: false,
        recipients: fates.map((fate) => freshRecipient(fate === 'hold' ? 'held' : 'queued')),
      },
      isWhole ? last : null,
    )
  }

  /** Nothing is kept: the client still has the message. */
  #end(
    draft: Draft,
    arrival: Arrival,
    inspection: Inspection,
    verdicts: readonly Verdict[],
    answer: Reply,
  ): Reply {
    draft.abort()
    const fates = arrival.envelope.recipients.map((): Fate => 'none')
    this.#record(arrival, inspection, verdicts, fates, answer)
    return answer
  }

  #storeRefusal(error: unknown): Reply {
    const isFull = error instanceof StoreError && error.remedy === 'retry'
    this.#deps.observer.emit('spool.refused', { cause: messageOf(error) })
    if (error instanceof AloneError) return ALONE
    return isFull ? NO_ROOM : TRY_LATER
  }

  #record(
    { envelope, sizeBytes, snapshot }: Arrival,
    inspection: Inspection,
    verdicts: readonly Verdict[],
    fates: readonly Fate[],
    answer: Reply,
  ): void {
    const { observer, trace } = this.#deps
    const acceptReply = formatReply(answer)
    const rows = envelope.recipients.map(({ address }, place): NewTraceRow => {
      const fate = fates[place] ?? 'none'
      const accept = acceptState(fate, answer)
      return {
        id: envelope.id,
        atMs: envelope.receivedMs,
        clientIp: envelope.clientIp,
        sender: envelope.sender,
        recipient: address,
        subject: inspection.facts.subject,
        sizeBytes,
        score: verdicts[place]?.score ?? 0,
        rules: verdicts[place]?.rules ?? [],
        accept,
        acceptReply,
        delivery: fate === 'deliver' ? 'queued' : fate === 'hold' ? 'held' : null,
        deliveryReply: null,
        deliveryMs: null,
      }
    })
    const author = authorOf(envelope, inspection, snapshot.settings)
    const { findings, unknowns } = inspection
    const isPlain = findings.length === 0 && unknowns.length === 0 && author === undefined
    trace.record(rows, [], isPlain ? null : judge(inspection, verdicts, snapshot, author))
    const first = verdicts[0]
    observer.emit('mail.decided', {
      message: envelope.id,
      verdict: rows[0]?.accept ?? 'refused',
      client: envelope.clientIp,
      from: envelope.sender,
      recipients: rows.length,
      size: sizeBytes,
      score: first?.score ?? 0,
      rules: first?.rules.join(',') ?? '',
      reply: acceptReply,
    })
  }

  // A mail out: queue > deliver > done, later, or bounce.

  async #attempt(
    message: Message,
    indexes: readonly number[],
    dots: Dots,
  ): ReturnType<Deliverer['deliver']> {
    const { envelope, commit } = message
    const recipients = indexes.flatMap((index) => envelope.recipients[index] ?? [])
    const snapshot = this.#deps.live.current
    const outcomes = await this.#deps.deliverer.deliver(
      {
        id: message.id,
        sender: envelope.sender,
        recipients,
        eightBit: envelope.eightBit,
        smtpUtf8: envelope.smtpUtf8,
        ret: envelope.ret,
        envid: envelope.envid,
        prepend: commit.prepend,
        body: message.outgoing(),
        ...dots,
      },
      routeOf(recipients[0]?.address ?? '', snapshot),
      {
        hostname: this.#deps.hostname,
        timeoutMs: snapshot.settings['deliver.timeout'] * 1_000,
      },
    )
    return outcomes
  }

  #bounce(notice: Notice): Promise<void> {
    const { queue, clock, live, observer } = this.#deps
    return notify(notice, {
      queue,
      clock,
      observer,
      build: (asked, header) => this.#buildNotice(asked, header),
      expireMs: live.current.settings['queue.expire'] * 3_600_000,
      enqueued: (message) => {
        this.#deps.trace.record(
          message.envelope.recipients.map(({ address }) => ({
            id: message.id,
            atMs: message.envelope.receivedMs,
            clientIp: '',
            sender: '',
            recipient: address,
            subject: message.commit.facts.subject,
            sizeBytes: message.commit.sizeBytes,
            score: 0,
            rules: [],
            accept: 'accepted',
            acceptReply: `Notification about ${notice.message.id}`,
            delivery: 'queued',
            deliveryReply: null,
            deliveryMs: null,
          })),
          [],
          null,
        )
        this.#worker.add(message)
      },
    })
  }

  /** Never to a sender who may be forged: that would be spam of ours (faults.md D19). */
  #buildNotice({ message, kind, about }: Notice, header: Uint8Array): BuiltNotice | null {
    const { envelope, commit } = message
    if (!mayBounce(envelope, this.#deps.live.current.domains)) return null
    const built = buildBounce({
      mid: message.id,
      kind,
      reportingHost: this.#deps.hostname,
      envelope,
      recipients: about.flatMap(({ index, reply: why }) => {
        const recipient = envelope.recipients[index]
        return recipient === undefined ? [] : [{ ...recipient, reply: why, host: null }]
      }),
      original: { bytes: header, isWhole: false },
      expiresMs: kind === 'delay' ? commit.expiresMs : null,
      nowMs: this.#deps.clock.wallMs(),
    })
    return built === null ? null : { ...built, subject: 'Delivery status notification' }
  }

  #progress(message: Message, index: number, what: Progress, detail: string): void {
    this.#told(message.id, index, what, detail, message.envelope.recipients[index]?.address)
  }

  #told(
    id: MessageId,
    place: number,
    state: DeliveryState,
    detail: string,
    address?: string,
  ): void {
    this.#deps.trace.outcome(id, place, state, detail, {
      atMs: this.#deps.clock.wallMs(),
      recipient: address ?? null,
      what: state,
      detail,
    })
  }

  // What an operator may ask of the mail (admin/mail-actions.ts).

  /** @throws StoreError when the held bytes are gone or the spool cannot take them */
  async release(id: MessageId, places: readonly number[], claim: Claim): Promise<void> {
    await release(id, places, claim, this.#releases)
    for (const _ of places) this.#deps.observer.emit('mail.released', { message: id, by: claim.by })
  }

  hasReleased(id: MessageId, place: number): boolean {
    return hasReleased(this.#deps.queue, id, place)
  }

  /** All releases that a stop had cut off were asked for again: what the spool knew is not needed. */
  releasesResumed(): void {
    this.#deps.queue.forgetReplayed()
  }

  queueRows(query: QueueQuery): QueuePart {
    return this.#list.rows(query)
  }

  copiesOf(owner: NodeId): number {
    return this.#list.copiesOf(owner)
  }

  copyOne(id: MessageId): QueueRow | null {
    return this.#list.copyOne(id)
  }

  queueOne(id: string): QueueRow | null {
    const message = this.#message(id)
    return message === null ? null : this.#worker.row(message)
  }

  /** Makes one message, or all, due now; how many there were. */
  retry(id: string | null): number {
    return this.#worker.retry((message) => id === null || message.id === id)
  }

  #retryDomains(domains: ReadonlySet<string>): void {
    if (domains.size === 0) return
    this.#worker.retry(({ envelope }) =>
      envelope.recipients.some(({ address }) => domains.has(parseAddress(address)?.domain ?? '')),
    )
  }

  /** False when nothing of it waits. */
  async drop(id: string, bounce: boolean): Promise<boolean> {
    const message = this.#message(id)
    if (message === null) return false
    return await this.#worker.drop(message, bounce, reply(550, '5.7.1', 'Dropped by an operator'))
  }

  /** What inspectors and settings of today say of a held mail; changes nothing. */
  async inspectAgain(
    row: HeldRow,
    bytes: Uint8Array,
    before: Judgement | null,
  ): Promise<Judgement> {
    const { live, inspectors, inspectConfig } = this.#deps
    const snapshot = live.current
    const { settings } = snapshot
    const inspection = await inspectors.inspect({
      envelope: envelopeAgain(row),
      body: { kind: 'memory', bytes },
      inspectors: settings['inspect.inspectors'],
      config: inspectConfig(snapshot),
      clientName: null,
      sha256: null,
      budgetMs: settings['inspect.budget'] * 1_000,
    })
    // The client is gone: what was seen of it counts as it did.
    const atDoor = (before?.findings ?? []).filter(({ rule }) => AT_DOOR.test(rule))
    const findings = weigh([...atDoor, ...inspection.findings], snapshot.detection)
    const again = { ...inspection, findings }
    const listing = listingOf(
      snapshot.lists,
      row,
      inspection.facts,
      inspection.insight ?? NO_INSIGHT,
    )
    const verdicts = row.recipients.map((address) =>
      decide(again, policyFor(snapshot, address), listing),
    )
    return judge(again, verdicts, snapshot)
  }

  queueTotals(): ReturnType<QueueWorker['totals']> {
    return this.#worker.totals()
  }

  #message(text: string): Message | null {
    const id = parseMessageId(text)
    return id === null ? null : this.#deps.queue.get(id)
  }
}

/** Rules of the door (mail/accept). */
const AT_DOOR = /^(?:DNSBL|RDNS|HELO|EARLY)_/

const NOTHING_MORE = {
  subject: null,
  score: 0,
  rules: [],
  delivery: null,
  deliveryReply: null,
  deliveryMs: null,
} as const
