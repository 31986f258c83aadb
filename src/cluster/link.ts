/**
 * The links of this node: one with every other member, dialled for ever, never two, and none
 * with anybody else.
 *
 * Both sides may dial. The side that is called decides: it welcomes the link or says why not.
 * A link that stands gives way only when it is worse by rule or does not answer any more; who
 * repeats what he heard on the wire displaces nothing, because he never gets as far as a frame.
 */
import type { Timer } from '../base/clock.ts'
import { assert, messageOf } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Admissions } from './admission.ts'
import type { SecureChannel } from './channel.ts'
import {
  type ClusterDeps,
  type Link,
  type Links,
  MESSAGE,
  type Member,
  type PeerAddress,
  type Roster,
  type Self,
} from './contract.ts'
import { MemberLink, type Run } from './member-link.ts'
import {
  ChannelError,
  dialSecure,
  Gate,
  type JoinGate,
  type ProtocolRange,
  REFUSALS,
  type Refusal,
  refusalOf,
} from './secure.ts'

/** What this version speaks. A node speaks the protocol of the version before, too. */
export const PROTOCOL: ProtocolRange = { min: 1, max: 2 }

/** The node with the larger id dials when the other one did not get through. */
const SECOND_DIAL_MS = 3_000
const REDIAL_MS_MIN = 1_000
const REDIAL_MS_MAX = 60_000
/** How long a standing link may take to prove that it lives. */
const PROOF_MS_MAX = 5_000
/** The other side may have to ask first whether a link of ours still stands. */
const WELCOME_MS_MAX = 2 * PROOF_MS_MAX
/** A double that was not seen for so long is gone; it dials at least every minute. */
const DOUBLE_MS_MAX = 180_000
const RUNS_MAX = 1_024
/** Callers whose key nobody here knows, asked at once how they were let in; and for how long. */
const STRANGERS_MAX = 8
const STRANGER_MS_MAX = 5_000
/** The notice that asks; welcomes and refusals are the others. */
const WHO = 255
const NO_ADMISSION = new Uint8Array(0)

export type LinkTableOptions = {
  readonly self: Self
  readonly clusterId: string
  readonly roster: Roster
  readonly listen: PeerAddress
  /** Of this program, for people. */
  readonly version: string
  /** False in a simulation: all encryption in order, on this thread. */
  readonly parallelCrypto: boolean
  readonly onJoin: JoinGate | null
  /** Without it, nobody is believed whom the roster does not know. */
  readonly admissions?: Pick<Admissions, 'mine' | 'take'>
  readonly protocol?: ProtocolRange
}

/** Two running processes that hold the keys of one node. */
export type Double = {
  readonly node: NodeId
  readonly kept: { readonly instance: string; readonly remote: PeerAddress }
  readonly refused: { readonly instance: string; readonly remote: PeerAddress }
  /** Wall ms. */
  readonly firstMs: number
  readonly lastMs: number
}

/** How we stand with one member that has no link, or had none. */
type Dial = {
  /** What the attempts were made with; a change starts them anew. */
  facts: string
  failures: number
  timer: Timer | null
  isBusy: boolean
  /** The attempt at one address. */
  startedMono: number
  attempt: AbortController
  /** A sign of life came meanwhile: dials again at once when this fails. */
  isWoken: boolean
  trouble: string | null
  /** The trouble that was logged. */
  said: string | null
}

export class LinkTable implements Links {
  readonly #options: LinkTableOptions
  readonly #deps: ClusterDeps
  readonly #gate: Gate
  readonly #links = new Map<NodeId, MemberLink>()
  readonly #dials = new Map<NodeId, Dial>()
  /** Members whose standing link is asked to prove itself. */
  readonly #contested = new Set<NodeId>()
  /** Whom the roster does not know, while they are asked how they were let in. */
  readonly #strangers = new Set<SecureChannel>()
  /** The last dial of each run of each node: a first message is taken once. */
  readonly #lastDials = new Map<string, number>()
  readonly #doubles = new Map<NodeId, Double & { lastMono: number }>()
  readonly #listeners = new Map<number, (link: Link, body: Uint8Array) => void>()
  #openListeners: ((link: Link) => void)[] = []
  #closeListeners: ((link: Link, why: string) => void)[] = []
  #refusedListeners: ((node: NodeId, refusal: Refusal) => void)[] = []
  #dialCount = 0
  #listener: { readonly port: number; close(): void } | null = null
  #isClosed = false

  /** Listens and dials. @throws RefusalError when the address cannot be bound */
  static async open(options: LinkTableOptions, deps: ClusterDeps): Promise<LinkTable> {
    const table = new LinkTable(options, deps)
    table.#listener = await deps.network.listen(options.listen, (stream) =>
      table.#gate.accept(stream),
    )
    deps.observer.gauge('links', 'Links with peers that are open', () => table.#links.size)
    options.roster.onChange(() => table.#follow())
    table.#follow()
    return table
  }

  private constructor(options: LinkTableOptions, deps: ClusterDeps) {
    this.#options = options
    this.#deps = deps
    const { self, clusterId, parallelCrypto, onJoin, protocol = PROTOCOL } = options
    this.#gate = new Gate(
      {
        own: self.keys.exchange,
        clusterId,
        protocol,
        parallelCrypto,
        onJoin,
        greet: (peer, greeting) => this.#greet(peer, greeting),
        opened: (channel) => this.#called(channel),
      },
      deps,
    )
  }

  get port(): number {
    return this.#listener?.port ?? 0
  }

  close(): void {
    this.#isClosed = true
    this.#listener?.close()
    this.#gate.close()
    for (const channel of [...this.#strangers]) channel.terminate('this node stops')
    for (const { timer } of this.#dials.values()) timer?.cancel()
    for (const link of [...this.#links.values()]) link.close('this node stops')
  }

  // ---- Links ----

  get(node: NodeId): Link | null {
    return this.#links.get(node) ?? null
  }

  all(): readonly Link[] {
    return [...this.#links.values()].sort((a, b) => (a.peer < b.peer ? -1 : 1))
  }

  onOpen(listener: (link: Link) => void): void {
    this.#openListeners.push(listener)
  }

  onClose(listener: (link: Link, why: string) => void): void {
    this.#closeListeners.push(listener)
  }

  onMessage(type: number, listener: (link: Link, body: Uint8Array) => void): void {
    assert(!this.#listeners.has(type), 'one listener a type')
    this.#listeners.set(type, listener)
  }

  /** A member refuses this node: it says `evicted`, say, before we heard of it ourselves. */
  onRefused(listener: (node: NodeId, refusal: Refusal) => void): void {
    this.#refusedListeners.push(listener)
  }

  trouble(node: NodeId): string | null {
    if (this.#links.has(node)) return null
    const member = this.#options.roster.get(node)
    if (member === null) return 'It is not known here.'
    if (member.standing === 'left') return 'It has left the cluster.'
    if (member.standing === 'evicted') return 'It was removed from the cluster.'
    if (member.peer.length === 0) return `${member.name} has not said where it listens for peers.`
    return this.#dials.get(node)?.trouble ?? 'There was no answer yet.'
  }

  /** Nodes seen twice in the last minutes, by node. */
  duplicates(): readonly Double[] {
    const sinceMono = this.#deps.clock.monoMs() - DOUBLE_MS_MAX
    for (const [node, { lastMono }] of this.#doubles) {
      if (lastMono < sinceMono) this.#doubles.delete(node)
    }
    return [...this.#doubles.values()]
      .sort((a, b) => (a.node < b.node ? -1 : 1))
      .map(({ node, kept, refused, firstMs, lastMs }) => ({ node, kept, refused, firstMs, lastMs }))
  }

  /**
   * A sign of life came on another way: dials now instead of at the end of the pause, or of a
   * connection that began while nothing came through.
   */
  wake(node: NodeId): void {
    const dial = this.#dials.get(node)
    if (dial === undefined || this.#links.has(node)) return
    const sinceMs = this.#deps.clock.monoMs() - dial.startedMono
    const waitMs = Math.max(0, REDIAL_MS_MIN - sinceMs)
    if (dial.isBusy) {
      dial.isWoken = true
      dial.timer?.cancel()
      dial.timer = this.#deps.clock.after(waitMs, () => dial.attempt.abort())
    } else if (dial.failures > 0) {
      dial.failures = 0
      this.#plan(node, waitMs)
    }
  }

  // ---- who is a member ----

  #follow(): void {
    if (this.#isClosed) return
    const { roster } = this.#options
    for (const link of [...this.#links.values()]) {
      const refusal = this.#refusalOf(link.exchangeKey, link.peer)
      if (refusal !== null) this.#dismiss(link, refusal, `${refusal} by the roster`)
    }
    const peers = roster.peers()
    for (const [node, dial] of this.#dials) {
      if (peers.some((peer) => peer.node === node)) continue
      dial.timer?.cancel()
      this.#dials.delete(node)
    }
    for (const { node, peer, exchange } of peers) {
      const facts = JSON.stringify([peer, exchange.toHex()])
      const dial = this.#dials.get(node)
      if (dial?.facts === facts) continue
      if (dial !== undefined) Object.assign(dial, { facts, failures: 0 })
      else this.#dials.set(node, newDial(facts))
      if (!this.#links.has(node)) this.#plan(node, this.#firstDelayMs(node))
    }
  }

  /** Null: the key is that of a member. */
  #refusalOf(key: Uint8Array, node: NodeId | null = null): Refusal | null {
    const member = this.#options.roster.byExchange(key)
    if (member === null || (node !== null && member.node !== node)) return 'unknown'
    if (member.standing !== 'member') return member.standing
    return member.node === this.#options.self.node ? 'twin' : null
  }

  // ---- called by a peer ----

  #greet(peer: Uint8Array, greeting: Uint8Array) {
    const refusal = this.#refusalOf(peer)
    // It may prove itself, in a channel that nobody else can read.
    if (refusal === 'unknown' && this.#options.admissions !== undefined) {
      return { greeting: this.#greeting(), refusal: null }
    }
    const said = readGreeting(greeting)
    const name = `${peer.toHex()} ${said.instance}`
    const isOld = said.dial <= (this.#lastDials.get(name) ?? 0)
    if (refusal === null && isOld) return null
    if (refusal === null) {
      this.#lastDials.delete(name)
      this.#lastDials.set(name, said.dial)
      const [oldest] = this.#lastDials.keys()
      if (this.#lastDials.size > RUNS_MAX && oldest !== undefined) this.#lastDials.delete(oldest)
    }
    return { greeting: this.#greeting(), refusal }
  }

  #called(channel: SecureChannel): void {
    const isUnknown = this.#refusalOf(channel.peerExchangeKey) === 'unknown'
    if (isUnknown && this.#options.admissions !== undefined) this.#askWho(channel)
    else this.#decide(channel)
  }

  /** Takes one message: the rows by which the caller was let in. */
  #askWho(channel: SecureChannel): void {
    if (this.#strangers.size >= STRANGERS_MAX) {
      return channel.dismiss(REFUSALS.indexOf('unknown'))
    }
    this.#strangers.add(channel)
    const timer = this.#deps.clock.after(STRANGER_MS_MAX, () =>
      channel.terminate('it did not say how it was let in'),
    )
    const over = (): void => {
      timer.cancel()
      this.#strangers.delete(channel)
    }
    channel.start({
      message: (type, body) => {
        over()
        channel.hold()
        if (type === MESSAGE.admission) {
          this.#options.admissions?.take(channel.peerExchangeKey, body)
        }
        this.#decide(channel)
      },
      closed: over,
    })
    channel.notice(WHO)
  }

  #decide(channel: SecureChannel): void {
    const refusal = this.#refusalOf(channel.peerExchangeKey)
    const member = this.#options.roster.byExchange(channel.peerExchangeKey)
    const peer = member?.node ?? this.#options.self.node
    const link = new MemberLink(
      channel,
      { peer, run: readGreeting(channel.greeting), outgoing: false },
      this.#deps,
    )
    if (refusal !== null) return link.refuse(refusal)
    this.#judge(link, (verdict) => {
      const now = this.#refusalOf(channel.peerExchangeKey, peer) ?? verdict
      if (now !== null) return link.refuse(now)
      link.welcome()
      this.#install(link)
    })
  }

  // ---- dialling ----

  #firstDelayMs(node: NodeId): number {
    return this.#options.self.node < node ? 0 : SECOND_DIAL_MS
  }

  #plan(node: NodeId, delayMs: number): void {
    const dial = this.#dials.get(node)
    if (dial === undefined || dial.isBusy || this.#isClosed) return
    dial.timer?.cancel()
    dial.timer = this.#deps.clock.after(delayMs, () => {
      dial.timer = null
      // #dial turns every failure into a trouble and a next attempt.
      void this.#dial(node, dial)
    })
  }

  async #dial(node: NodeId, dial: Dial): Promise<void> {
    const { roster } = this.#options
    dial.isBusy = true
    dial.isWoken = false
    const { facts } = dial
    const troubles: string[] = []
    for (const address of roster.get(node)?.peer ?? []) {
      if (!this.#isWanted(node, dial)) break
      const member = roster.get(node)
      if (member === null) break
      dial.startedMono = this.#deps.clock.monoMs()
      dial.attempt = new AbortController()
      const trouble = await this.#dialOne(member, address, dial.attempt.signal)
      if (trouble !== null) troubles.push(trouble)
    }
    dial.isBusy = false
    dial.timer?.cancel()
    if (!this.#isWanted(node, dial)) return
    if (dial.facts !== facts || dial.isWoken) return this.#plan(node, 0)
    this.#setTrouble(node, dial, troubles.join(' '))
    const boundMs = Math.min(REDIAL_MS_MAX, 2 * REDIAL_MS_MIN * 2 ** Math.min(dial.failures, 16))
    dial.failures += 1
    const jitterMs = this.#deps.random.below(boundMs - REDIAL_MS_MIN)
    this.#plan(node, REDIAL_MS_MIN + jitterMs)
  }

  #isWanted(node: NodeId, dial: Dial): boolean {
    return !this.#isClosed && this.#dials.get(node) === dial && !this.#links.has(node)
  }

  /** Null: there is a link now, of whatever side. */
  async #dialOne(
    member: Member,
    address: PeerAddress,
    signal: AbortSignal,
  ): Promise<string | null> {
    const { self, clusterId, parallelCrypto, protocol = PROTOCOL } = this.#options
    const at = addressText(address)
    try {
      const channel = await dialSecure(
        this.#deps.network,
        address,
        {
          own: self.keys.exchange,
          clusterId,
          protocol,
          parallelCrypto,
          purpose: { pattern: 'IK' },
          peer: member.exchange,
          greeting: this.#greeting(),
          signal,
        },
        this.#deps,
      )
      return await this.#dialled(channel, member, at)
    } catch (error) {
      if (!(error instanceof ChannelError)) return `${at}: ${messageOf(error)}.`
      if (error.refusal !== null) this.#tellRefused(member.node, error.refusal)
      return this.#words(error, member, at)
    }
  }

  /** Waits for the word of the side that was called. */
  #dialled(channel: SecureChannel, member: Member, at: string): Promise<string | null> {
    const { node } = member
    const run = readGreeting(channel.greeting)
    const link = new MemberLink(channel, { peer: node, run, outgoing: true }, this.#deps)
    return new Promise((resolve) => {
      const timer = this.#deps.clock.after(WELCOME_MS_MAX, () =>
        channel.terminate('it did not say whether this node is welcome'),
      )
      let hasTold = false
      const done = (trouble: string | null): void => {
        timer.cancel()
        resolve(trouble)
      }
      channel.start({
        message: () => channel.terminate('a message before the welcome'),
        closed: (why) => done(`${at}: the link closed before it was open (${why}).`),
        notice: (code) => {
          if (code === WHO && !hasTold) {
            hasTold = true
            const admission = this.#options.admissions?.mine() ?? NO_ADMISSION
            channel.send(MESSAGE.admission, admission)
            return
          }
          timer.cancel()
          channel.hold()
          if (code !== 0) {
            const refusal = refusalOf(code)
            link.close(refusal)
            this.#tellRefused(node, refusal)
            return done(this.#refusalText(refusal, member, null))
          }
          this.#judge(link, (verdict) => {
            const refusal = this.#refusalOf(channel.peerExchangeKey, node) ?? verdict
            if (this.#isClosed || refusal !== null) {
              link.close(refusal ?? 'this node stops')
              return done(null)
            }
            this.#install(link)
            done(null)
          })
        },
      })
    })
  }

  #greeting(): Uint8Array {
    const { instance, epoch } = this.#options.self
    this.#dialCount += 1
    return writeGreeting({ instance, epoch, dial: this.#dialCount })
  }

  // ---- one link a pair ----

  /**
   * Whether a new link may take the place: null, or why not. A standing link that was dialled by
   * the larger id gives way to one dialled by the smaller one, on both sides alike. Every other
   * standing link gives way when it does not answer; when it does and somebody else holds the
   * other one, a node runs twice and the one that started first stays.
   */
  #judge(link: MemberLink, decide: (refusal: Refusal | null) => void): void {
    const standing = this.#links.get(link.peer)
    if (standing === undefined) return decide(null)
    const isSameRun = standing.instance === link.instance
    if (isSameRun && this.#isFirst(link) && !this.#isFirst(standing)) return decide(null)
    if (this.#contested.has(link.peer)) return decide('standing')
    this.#contested.add(link.peer)
    standing.probe(PROOF_MS_MAX, (isAlive) => {
      this.#contested.delete(link.peer)
      if (!isAlive) return decide(null)
      if (isSameRun && standing.outgoing !== link.outgoing) return decide('standing')
      // Who has a link does not dial: also the same run twice is a copy of a running machine.
      const isOlder = isSameRun || isBefore(standing, link)
      this.#doubled(isOlder ? standing : link, isOlder ? link : standing)
      if (isOlder) return decide('twin')
      this.#dismiss(standing, 'twin', 'another copy of this node started before it')
      decide(null)
    })
  }

  /** Dialled by the smaller id. */
  #isFirst(link: MemberLink): boolean {
    return link.outgoing === this.#options.self.node < link.peer
  }

  #install(link: MemberLink): void {
    const { peer } = link
    // Its end may let in another one that waited for the proof.
    for (let old = this.#links.get(peer); old !== undefined; old = this.#links.get(peer)) {
      old.close('another link took its place')
      // It may have been over already, and say so only later.
      this.#closed(old, 'another link took its place')
    }
    const dial = this.#dials.get(peer)
    dial?.timer?.cancel()
    if (dial !== undefined) Object.assign(dial, { failures: 0, trouble: null, said: null })
    this.#links.set(peer, link)
    this.#deps.observer.emit('link.opened', {
      peer,
      remote: addressText(link.remote),
      outgoing: link.outgoing,
    })
    for (const listener of this.#openListeners) this.#edge(link, () => listener(link))
    link.start({
      message: (type, body) => this.#edge(link, () => this.#listeners.get(type)?.(link, body)),
      refused: (code) => {
        const refusal = refusalOf(code)
        this.#tellRefused(peer, refusal)
        this.#closed(link, `refused: ${refusal}`)
        link.close(refusal)
      },
      closed: (why) => this.#closed(link, why),
    })
  }

  /** An error in what a listener does ends the link, not the process. */
  #edge(link: MemberLink, run: () => void): void {
    try {
      run()
    } catch (error) {
      this.#deps.observer.emit('link.failed', { peer: link.peer, cause: messageOf(error) })
      link.close('an error of ours')
    }
  }

  #dismiss(link: MemberLink, refusal: Refusal, why: string): void {
    link.refuse(refusal)
    this.#closed(link, why)
  }

  #closed(link: MemberLink, why: string): void {
    const { peer } = link
    if (this.#links.get(peer) !== link) return
    this.#links.delete(peer)
    this.#deps.observer.emit('link.closed', { peer, why })
    for (const listener of this.#closeListeners) this.#edge(link, () => listener(link, why))
    const dial = this.#dials.get(peer)
    if (dial === undefined) return
    dial.trouble = `The link closed: ${why}.`
    this.#plan(peer, this.#firstDelayMs(peer) + this.#deps.random.below(REDIAL_MS_MIN))
  }

  #doubled(kept: MemberLink, refused: MemberLink): void {
    const { clock, observer } = this.#deps
    const node = kept.peer
    const known = this.duplicates().find((double) => double.node === node)
    const double = {
      node,
      kept: { instance: kept.instance, remote: kept.remote },
      refused: { instance: refused.instance, remote: refused.remote },
      firstMs: known?.firstMs ?? clock.wallMs(),
      lastMs: clock.wallMs(),
      lastMono: clock.monoMs(),
    }
    this.#doubles.set(node, double)
    if (known !== undefined) return
    observer.emit('node.doubled', {
      peer: node,
      kept: addressText(kept.remote),
      refused: addressText(refused.remote),
    })
  }

  // ---- words ----

  #setTrouble(node: NodeId, dial: Dial, trouble: string): void {
    dial.trouble = trouble
    // A node that was let in just now does not listen yet: once is no trouble.
    if (dial.failures === 0 || dial.said === trouble) return
    dial.said = trouble
    this.#deps.observer.emit('link.troubled', { peer: node, why: trouble })
  }

  #tellRefused(node: NodeId, refusal: Refusal): void {
    for (const listener of this.#refusedListeners) listener(node, refusal)
  }

  #words(error: ChannelError, member: Member, at: string): string {
    const { failure, refusal } = error
    if (refusal !== null) return this.#refusalText(refusal, member, error.protocol)
    switch (failure) {
      case 'unreachable':
        return `${at} cannot be reached over TCP: ${error.message}.`
      case 'silent':
        return `${at} took the connection and never answered.`
      case 'wrongKey':
        return `${at} is somebody else: it does not hold the key of ${member.name}.`
      default:
        return (
          `${at} took the connection and hung up: it has another key than ${member.name} had ` +
          'when it joined, belongs to another cluster, or is no Postern.'
        )
    }
  }

  #refusalText(refusal: Refusal, member: Member, theirs: ProtocolRange | null): string {
    const { name } = member
    const { version, protocol: ours = PROTOCOL } = this.#options
    switch (refusal) {
      case 'version':
        return (
          `${name} (${member.version}) speaks protocol ${rangeText(theirs)}, this node ` +
          `(${version}) ${rangeText(ours)}: upgrade the older one.`
        )
      case 'unknown':
        return (
          `${name} does not know this node, and what this node has of its admission does not ` +
          'prove it. If that lasts, join it again, with a new token and --new-identity.'
        )
      case 'left':
        return `${name} refuses this node: it has left the cluster.`
      case 'evicted':
        return `${name} refuses this node: it was removed from the cluster.`
      case 'standing':
        return `${name} has a link with this node already, which answers.`
      case 'twin':
        return (
          `${name} refuses this node: another machine runs with the same identity. Stop the ` +
          'copy, or remove its data directory and join it as a new node.'
        )
    }
  }
}

function newDial(facts: string): Dial {
  return {
    facts,
    failures: 0,
    timer: null,
    isBusy: false,
    startedMono: 0,
    attempt: new AbortController(),
    isWoken: false,
    trouble: null,
    said: null,
  }
}

/** Started earlier; two that started at once have some order, the same everywhere. */
function isBefore(a: Run, b: Run): boolean {
  return a.epoch === b.epoch ? a.instance < b.instance : a.epoch < b.epoch
}

/** instance 6 | epoch 4 | dial 6; the rest is zero. */
function writeGreeting(run: Run & { readonly dial: number }): Uint8Array {
  const bytes = Buffer.alloc(16)
  bytes.write(run.instance, 0, 6, 'hex')
  bytes.writeUInt32BE(run.epoch >>> 0, 6)
  bytes.writeUIntBE(run.dial, 10, 6)
  return new Uint8Array(bytes)
}

function readGreeting(greeting: Uint8Array): Run & { readonly dial: number } {
  const bytes = Buffer.from(greeting)
  return {
    instance: bytes.toString('hex', 0, 6),
    epoch: bytes.readUInt32BE(6),
    dial: bytes.readUIntBE(10, 6),
  }
}

function rangeText(range: ProtocolRange | null): string {
  if (range === null) return 'of another version'
  return range.min === range.max ? `${range.min}` : `${range.min} to ${range.max}`
}

function addressText({ host, port }: PeerAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
