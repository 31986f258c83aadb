/**
 * Who lives: SWIM (Das et al., 2002) with Lifeguard (Dadgar et al., 2017), over datagrams and, in
 * parallel, over the links.
 *
 * Every second or so the peer is asked that was silent longest. One that does not answer is asked
 * again, also by way of others and by its link. After 5 s without any sign of life it is `suspect`
 * and everybody hears of it, the suspect too, which refutes by a higher incarnation; 10 s later it
 * is `dead`. Each node finds that itself: a verdict of others is only a suspicion here. The dead
 * are asked for ever, at longer and longer intervals, so that a partition heals by itself.
 */
import type { Timer } from '../base/clock.ts'
import { assert } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import { randomHex } from '../base/random.ts'
import {
  type ClusterDeps,
  type Life,
  type Link,
  type Links,
  type Liveness,
  MESSAGE,
  type Member,
  type Members,
  type PeerAddress,
  type Roster,
} from './contract.ts'
import {
  decodeLetter,
  encodeLetter,
  INCARNATION_MAX,
  type Item,
  type Letter,
  type ProbeId,
  type Way,
  type Word,
} from './letter.ts'
import { type Opened, Packets, Sources } from './packet.ts'
import { Rumours } from './rumours.ts'

/** Between two questions; four packets per node in this time are what a quiet cluster costs. */
const PROBE_MS = 1_300
/** Waiting for a direct answer: by the measured round trip, within these. */
const DIRECT_MS = { least: 200, first: 400, most: 600 } as const
/** Then for one by way of others or by the link. */
const INDIRECT_MS = 1_000
const ASKED_OTHERS = 3
/** Questions of others that are open at a time; more are not taken. */
const RELAYS_MAX = 64

/** No sign of life since the first question without an answer (design: cluster.md, mail.md). */
const SUSPECT_MS = 5_000
/** Then, times 1 to 2.75 by the health of this node. */
const SUSPICION_MS = 10_000
/** A member that nobody has heard yet. */
const UNHEARD_MS = SUSPECT_MS + SUSPICION_MS

/** Between two questions to a dead node; less up to a half at random. */
const DEAD_MS = { first: 1_000, most: 45_000 } as const

/** Lifeguard's local health: 0 is well; each step is a sign that the fault is here. */
const HEALTH_MAX = 7
/** A timer that is so late says that this process stood still. */
const STALL_MS = 250
/** What was due meanwhile gets at most this much time again: the answers wait in the socket. */
const GRACE_MS_MAX = 5_000

/** A way works while something came by it in this time (datagrams: or in 2.5 rounds). */
const HEARD_MS = 15_000
const HEARD_ROUNDS = 2.5
/** A link without traffic is asked. */
const QUIET_LINK_MS = 10_000

const GOSSIP_MS = 250
const GOSSIP_TO = 3
const WORDS_MAX = 50
/** A node that others accuse and that we heard is told so at most once in this time. */
const WARN_MS = 2_000
/** Questions out of turn in one tick: news of the ways, quiet links. */
const EXTRA_PROBES = 3

/** Each peer hears of the ways of this node so often, so many at a time. */
const LINKS_MS = 5_000
const LINKS_AT_ONCE = 12

/** Only once in this time is another run of a living node asked whether it lives too. */
const RIVAL_MS = 30_000

/** How a node reaches another one. */
export type LinkSight = { readonly tcp: Way; readonly udp: Way }

type Plane = 'udp' | 'tcp'

type Peer = {
  readonly node: NodeId
  member: Member
  life: Life
  sinceMono: number
  incarnation: number
  heardMono: number | null
  /** By a datagram of its own. */
  heardUdpMono: number | null
  /** What it said of hearing us; null: nothing yet. */
  told: Letter['heard'] | null
  /** What we said of hearing it, and it has answered; null: nothing yet. */
  acked: Letter['heard'] | null
  /** From where its last datagram came; null: ask the addresses of the roster in turn. */
  source: PeerAddress | null
  turn: number
  roundTripMs: number | null
  variationMs: number
  probe: Probe | null
  askedMono: number
  /** The first question that nobody answered; null: there is no doubt. */
  doubtMono: number | null
  /** For the next verdict: from doubt to suspect, from suspect to dead. */
  verdict: Timer | null
  retry: Timer | null
  retryMs: number
  /** What it says of its own ways, by node. */
  readonly sights: Map<NodeId, LinkSight>
  linksToldMono: number
  linksNext: number
  /** When it was last told that somebody accuses it; null: never. */
  warnedMono: number | null
  rival: Rival | null
  isMuteSaid: boolean
}

/** Another run of the same node. */
type Rival = { readonly askedMono: number; readonly address: string; isProven: boolean }

/** One question to one peer. */
type Probe = {
  readonly id: ProbeId
  readonly peer: Peer
  readonly sentMono: number
  readonly heard: Letter['heard']
  timer: Timer | null
  /** Others that were asked and have not said `nack`. */
  readonly silent: Set<NodeId>
  asked: number
}

/** A question that somebody else has asked us to ask. */
type Relay = { readonly of: NodeId; readonly probe: ProbeId; readonly timer: Timer }

type Socket = Awaited<ReturnType<ClusterDeps['network']['datagrams']>>

export class MemberTable implements Members {
  readonly #roster: Roster
  readonly #links: Links
  readonly #deps: ClusterDeps
  readonly #packets: Packets
  readonly #sources: Sources
  readonly #rumours = new Rumours()
  readonly #peers = new Map<NodeId, Peer>()
  readonly #probes = new Map<ProbeId, Probe>()
  readonly #relays = new Map<ProbeId, Relay>()
  readonly #listeners: ((liveness: Liveness, before: Life) => void)[] = []
  readonly #startMono: number
  #socket: Socket | null = null
  /** Addresses of the roster. */
  #hosts: ReadonlySet<string> = new Set()
  /** All members by id, and what stands for exactly these. */
  #everybody: readonly NodeId[] = []
  #rosterHash = 0
  #incarnation: number
  #health = 0
  /** Up to here stalls are counted. */
  #awakeMono: number
  #ticking: Timer | null = null
  /** Null: there is nothing to tell. */
  #gossiping: Timer | null = null
  #isClosed = false

  /** @throws RefusalError when the port cannot be bound */
  static async open(
    options: {
      readonly roster: Roster
      readonly links: Links
      /** Where datagrams come in; port 0 takes any. */
      readonly listen: PeerAddress
    },
    deps: ClusterDeps,
  ): Promise<MemberTable> {
    const table = new MemberTable(options.roster, options.links, deps)
    table.#socket = await deps.network.datagrams(options.listen, (bytes, from) =>
      table.#receive(bytes, from),
    )
    table.#start()
    return table
  }

  private constructor(roster: Roster, links: Links, deps: ClusterDeps) {
    this.#roster = roster
    this.#links = links
    this.#deps = deps
    this.#packets = new Packets(roster.self, roster.clusterId, deps.random)
    this.#sources = new Sources(deps.clock)
    this.#incarnation = roster.self.epoch * 0x1_0000
    this.#startMono = deps.clock.monoMs()
    this.#awakeMono = this.#startMono
  }

  /** Where datagrams come in. */
  get port(): number {
    assert(this.#socket !== null, 'an opened table has a socket')
    return this.#socket.port
  }

  /** Lifeguard's local health, 0 (well) to 7. */
  get health(): number {
    return this.#health
  }

  close(): void {
    this.#isClosed = true
    this.#socket?.close()
    this.#ticking?.cancel()
    this.#gossiping?.cancel()
    for (const peer of this.#peers.values()) this.#forget(peer)
    for (const { timer } of this.#relays.values()) timer.cancel()
  }

  // ---- what is known ----

  get(node: NodeId): Liveness | null {
    const peer = this.#peers.get(node)
    return peer === undefined ? null : this.#livenessOf(peer)
  }

  all(): readonly Liveness[] {
    return [...this.#peers.values()].map((peer) => this.#livenessOf(peer))
  }

  isUsable(node: NodeId): boolean {
    const peer = this.#peers.get(node)
    return peer !== undefined && peer.life === 'alive' && this.#tcpOf(peer).works === true
  }

  /**
   * How `node` reaches each other member, as it last told; this node's own ways are as they are
   * now. Null: not known, or the node is not in reach.
   */
  linksOf(node: NodeId): ReadonlyMap<NodeId, LinkSight> | null {
    if (node === this.#roster.self.node) {
      return new Map([...this.#peers.values()].map((peer) => [peer.node, this.#sightOf(peer)]))
    }
    const peer = this.#peers.get(node)
    return peer === undefined || peer.life === 'dead' || peer.sights.size === 0 ? null : peer.sights
  }

  onChange(listener: (liveness: Liveness, before: Life) => void): void {
    this.#listeners.push(listener)
  }

  #livenessOf(peer: Peer): Liveness {
    this.#hearLink(peer)
    const { node, life, sinceMono, heardMono } = peer
    const udp = this.#udpOf(peer)
    const tcp = this.#tcpOf(peer).works
    return { node, life, sinceMono, heardMono, udp: udp.works, tcp, udpRoundTripMs: udp.ms }
  }

  #sightOf(peer: Peer): LinkSight {
    return { tcp: this.#tcpOf(peer), udp: this.#udpOf(peer) }
  }

  /** A way works when both ends hear each other by it. */
  #udpOf(peer: Peer): Way {
    const { udp } = this.#heardOf(peer)
    if (peer.told === null) return { works: null, ms: null }
    return udp && peer.told.udp ? { works: true, ms: peer.roundTripMs } : { works: false, ms: null }
  }

  #tcpOf(peer: Peer): Way {
    const link = this.#links.get(peer.node)
    if (link === null) return { works: false, ms: null }
    if (peer.told === null) return { works: null, ms: null }
    const { tcp } = this.#heardOf(peer)
    return tcp && peer.told.tcp ? { works: true, ms: link.roundTripMs } : { works: false, ms: null }
  }

  /** Whether this node lately heard the peer: by datagram, by link. */
  #heardOf(peer: Peer): Letter['heard'] {
    const nowMono = this.#nowMono()
    const link = this.#links.get(peer.node)
    return {
      udp: peer.heardUdpMono !== null && nowMono - peer.heardUdpMono < this.#udpWindowMs(),
      tcp: link !== null && nowMono - link.heardMono < HEARD_MS,
    }
  }

  /** In a large cluster each peer's turn comes seldom. */
  #udpWindowMs(): number {
    return Math.max(HEARD_MS, HEARD_ROUNDS * this.#peers.size * PROBE_MS)
  }

  // ---- time ----

  #nowMono(): number {
    return this.#deps.clock.monoMs()
  }

  /** A timer of this table; how late it fires tells whether the process stood still. */
  #after(delayMs: number, run: () => void): Timer {
    const dueMono = this.#nowMono() + delayMs
    return this.#deps.clock.after(delayMs, () => {
      if (this.#isClosed) return
      this.#noteLateness(dueMono)
      run()
    })
  }

  /**
   * As `#after`, for a time limit on others: when the process stood still, they get that time
   * again, since their answers still wait to be read.
   */
  #limit(delayMs: number, run: () => void): Timer {
    const dueMono = this.#nowMono() + delayMs
    let timer = this.#after(delayMs, () => {
      const lateMs = this.#nowMono() - dueMono
      if (lateMs <= STALL_MS) run()
      else timer = this.#limit(Math.min(lateMs, GRACE_MS_MAX), run)
    })
    return { cancel: () => timer.cancel() }
  }

  #noteLateness(dueMono: number): void {
    const nowMono = this.#nowMono()
    if (nowMono - Math.max(dueMono, this.#awakeMono) > STALL_MS) {
      this.#deps.observer.emit('member.stalled', { ms: Math.round(nowMono - dueMono) })
      this.#ail(1)
    }
    this.#awakeMono = nowMono
  }

  #ail(steps: number): void {
    this.#health = Math.min(HEALTH_MAX, Math.max(0, this.#health + steps))
  }

  // ---- who there is ----

  #start(): void {
    this.#deps.observer.gauge(
      'member_health',
      'Signs that this node is the slow one, 0 to 7',
      () => {
        return this.#health
      },
    )
    this.#roster.onChange(() => this.#followRoster())
    this.#links.onOpen((link) => {
      const peer = this.#peers.get(link.peer)
      if (peer === undefined) return
      this.#hear(peer)
      // It learns at once that the link goes both ways.
      this.#probe(peer)
    })
    this.#links.onClose((link) => {
      // Perhaps its process ended: ask at once.
      const peer = this.#peers.get(link.peer)
      if (peer?.life === 'alive') this.#probe(peer)
    })
    this.#links.onMessage(MESSAGE.gossip, (link, body) => this.#receiveByLink(link, body))
    this.#followRoster()
    this.#ticking = this.#after(this.#deps.random.below(PROBE_MS), () => this.#tick())
  }

  #followRoster(): void {
    if (this.#isClosed) return
    const self = this.#roster.self.node
    const isMember = (this.#roster.get(self)?.standing ?? 'member') === 'member'
    const peers = isMember ? this.#roster.peers() : []
    this.#packets.speakWith(peers)
    const kept = new Set(peers.map(({ node }) => node))
    for (const peer of [...this.#peers.values()]) {
      if (kept.has(peer.node)) continue
      this.#forget(peer)
      this.#peers.delete(peer.node)
    }
    for (const member of peers) {
      const peer = this.#peers.get(member.node)
      if (peer === undefined) this.#meet(member)
      else peer.member = member
    }
    this.#hosts = new Set(peers.flatMap(({ peer }) => peer.map(({ host }) => host)))
    this.#everybody = [self, ...kept].sort()
    this.#rosterHash = hashOf(this.#everybody)
  }

  #meet(member: Member): void {
    const peer: Peer = {
      node: member.node,
      member,
      life: 'suspect',
      sinceMono: this.#nowMono(),
      incarnation: 0,
      heardMono: null,
      heardUdpMono: null,
      told: null,
      acked: null,
      source: null,
      turn: 0,
      roundTripMs: null,
      variationMs: 0,
      probe: null,
      askedMono: 0,
      doubtMono: null,
      verdict: null,
      retry: null,
      retryMs: DEAD_MS.first,
      sights: new Map(),
      linksToldMono: Number.NEGATIVE_INFINITY,
      linksNext: 0,
      warnedMono: null,
      rival: null,
      isMuteSaid: false,
    }
    this.#peers.set(member.node, peer)
    peer.verdict = this.#limit(UNHEARD_MS, () => this.#bury(peer))
    peer.retry = this.#after(this.#deps.random.below(500), () => this.#probe(peer))
  }

  /** Nothing of ours waits for it any more. */
  #forget(peer: Peer): void {
    peer.verdict?.cancel()
    peer.retry?.cancel()
    this.#rumours.forget(peer.node)
    for (const probe of this.#probes.values()) if (probe.peer === peer) this.#end(probe)
    // So that nothing that still holds it begins anew.
    peer.life = 'dead'
  }

  #isPeer(peer: Peer): boolean {
    return this.#peers.get(peer.node) === peer
  }

  // ---- asking ----

  #tick(): void {
    this.#ticking = this.#after(PROBE_MS * (1 + this.#health), () => this.#tick())
    let extra = EXTRA_PROBES
    for (const peer of this.#peers.values()) {
      this.#hearLink(peer)
      this.#sayWhenMute(peer)
      if (extra > 0 && peer.probe === null && this.#isNewsFor(peer)) {
        extra -= 1
        this.#probe(peer)
      }
    }
    const next = this.#mostSilent()
    if (next !== null) this.#probe(next)
  }

  /**
   * Each peer's silence ends when it asks or is asked: a crash is found sooner, and more evenly,
   * than by rounds in random order. Among equals chance decides.
   */
  #mostSilent(): Peer | null {
    let most: Peer | null = null
    for (const peer of this.#shuffled([...this.#peers.values()])) {
      if (peer.life !== 'alive' || peer.probe !== null) continue
      if (most === null || silentSince(peer) < silentSince(most)) most = peer
    }
    return most
  }

  /** It must learn how we hear it, or its link was quiet for long. */
  #isNewsFor(peer: Peer): boolean {
    if (peer.life !== 'alive') return false
    const heard = this.#heardOf(peer)
    const isTold = peer.acked?.udp === heard.udp && peer.acked.tcp === heard.tcp
    return !isTold || this.#isLinkQuiet(peer)
  }

  #isLinkQuiet(peer: Peer): boolean {
    const link = this.#links.get(peer.node)
    return link !== null && this.#nowMono() - link.heardMono > QUIET_LINK_MS
  }

  #probe(peer: Peer): void {
    if (peer.probe !== null || !this.#isPeer(peer)) return
    peer.retry?.cancel()
    const probe = this.#newProbe(peer)
    peer.probe = probe
    peer.askedMono = probe.sentMono
    this.#ping(peer, probe.id, { byLink: this.#isLinkQuiet(peer), withLinks: true })
    probe.timer = this.#limit(directMs(peer), () => this.#askOthers(probe))
  }

  #newProbe(peer: Peer): Probe {
    const probe: Probe = {
      id: randomHex(this.#deps.random, 8),
      peer,
      sentMono: this.#nowMono(),
      heard: this.#heardOf(peer),
      timer: null,
      silent: new Set(),
      asked: 0,
    }
    this.#probes.set(probe.id, probe)
    return probe
  }

  /** By datagram; by the link as well where datagrams do not pass. */
  #ping(
    peer: Peer,
    probe: ProbeId,
    options: { readonly byLink: boolean; readonly withLinks: boolean },
  ): void {
    const items: Item[] = [{ kind: 'ping', probe }]
    if (options.withLinks) items.push(...this.#linksFor(peer))
    this.#send(peer, items, 'udp')
    if (options.byLink || !this.#passesUdp(peer)) this.#send(peer, items, 'tcp')
  }

  /** No answer in time: three others and the link may have more luck. */
  #askOthers(probe: Probe): void {
    const { peer } = probe
    // Perhaps it moved.
    peer.turn += 1
    peer.source = null
    const others = [...this.#peers.values()].filter(
      (other) => other !== peer && other.life === 'alive' && other.doubtMono === null,
    )
    for (const other of this.#shuffled(others).slice(0, ASKED_OTHERS)) {
      probe.silent.add(other.node)
      probe.asked += 1
      this.#send(other, [{ kind: 'ask', probe: probe.id, target: peer.node }])
    }
    if (this.#passesUdp(peer)) this.#send(peer, [{ kind: 'ping', probe: probe.id }], 'tcp')
    probe.timer = this.#limit(INDIRECT_MS, () => this.#fail(probe))
  }

  /** Nobody got an answer. */
  #fail(probe: Probe): void {
    const { peer } = probe
    this.#end(probe)
    // None of the others said as much as `nack`: the fault may be here.
    if (probe.asked > 0 && probe.silent.size === probe.asked) this.#ail(1)
    this.#hearLink(peer)
    if (peer.heardMono !== null && peer.heardMono > probe.sentMono) return
    if (peer.life === 'suspect') this.#accuseAgain(peer)
    if (peer.life === 'alive' && peer.doubtMono === null) {
      peer.doubtMono = probe.sentMono
      const leftMs = Math.max(0, probe.sentMono + SUSPECT_MS - this.#nowMono())
      peer.verdict = this.#limit(leftMs, () => this.#suspect(peer))
    }
    this.#askAgain(peer)
  }

  #askAgain(peer: Peer): void {
    const longest = peer.life === 'dead' ? peer.retryMs : peer.life === 'suspect' ? 1_000 : 250
    if (peer.life === 'dead') peer.retryMs = Math.min(DEAD_MS.most, 2 * peer.retryMs)
    const delayMs = longest / 2 + this.#deps.random.below(Math.ceil(longest / 2))
    peer.retry?.cancel()
    peer.retry = this.#after(delayMs, () => this.#probe(peer))
  }

  /** The question is closed; a later answer to it is none. */
  #end(probe: Probe): void {
    probe.timer?.cancel()
    this.#probes.delete(probe.id)
    if (probe.peer.probe === probe) probe.peer.probe = null
  }

  // ---- verdicts ----

  /** A sign of life. */
  #hear(peer: Peer): void {
    peer.heardMono = this.#nowMono()
    if (peer.life === 'alive' && peer.doubtMono === null) return
    peer.doubtMono = null
    peer.verdict?.cancel()
    peer.retry?.cancel()
    peer.retryMs = DEAD_MS.first
    if (peer.life === 'alive') return
    this.#change(peer, 'alive')
    if (!this.#rumours.isEmpty) this.#gossiping ??= this.#after(0, () => this.#gossip())
  }

  /** What came by the link since it was last looked at. */
  #hearLink(peer: Peer): void {
    const link = this.#links.get(peer.node)
    if (link === null || link.heardMono <= (peer.heardMono ?? Number.NEGATIVE_INFINITY)) return
    this.#hear(peer)
    peer.heardMono = link.heardMono
  }

  #suspect(peer: Peer): void {
    this.#hearLink(peer)
    if (peer.life !== 'alive' || peer.doubtMono === null) return
    this.#accuse(peer)
  }

  #accuse(peer: Peer): void {
    peer.doubtMono = null
    peer.verdict?.cancel()
    this.#change(peer, 'suspect')
    this.#spread({ kind: 'suspect', node: peer.node, incarnation: peer.incarnation })
    peer.verdict = this.#limit(SUSPICION_MS * (1 + this.#health / 4), () => this.#bury(peer))
    if (peer.probe === null) this.#askAgain(peer)
  }

  /** The first time, perhaps nobody heard it who could tell the accused. */
  #accuseAgain(peer: Peer): void {
    const { node, incarnation } = peer
    if (incarnation > 0) this.#spread({ kind: 'suspect', node, incarnation })
  }

  #bury(peer: Peer): void {
    this.#hearLink(peer)
    if (peer.life !== 'suspect') return
    this.#change(peer, 'dead')
    peer.sights.clear()
    peer.told = null
    peer.acked = null
  }

  #change(peer: Peer, life: Life): void {
    const before = peer.life
    peer.life = life
    peer.sinceMono = this.#nowMono()
    this.#deps.observer.emit('member.judged', { peer: peer.node, life, before })
    const liveness = this.#livenessOf(peer)
    for (const listener of this.#listeners) listener(liveness, before)
  }

  // ---- what comes in ----

  #receive(bytes: Uint8Array, from: PeerAddress): void {
    if (this.#isClosed) return
    if (!this.#sources.admit(from.host, this.#hosts.has(from.host))) return this.#drop('flood')
    const opened = this.#packets.open(bytes)
    if (typeof opened === 'string') return this.#drop(opened)
    const peer = this.#peers.get(opened.from)
    if (peer === undefined) return
    if (opened.order === 'rival') return this.#meetRival(peer, opened, from)
    if (opened.order === 'next') {
      peer.source = from
      peer.heardUdpMono = this.#nowMono()
      this.#sayWhenDoubled(peer)
      this.#takeNews(peer, opened.letter)
    }
    this.#answer(peer, opened.letter, 'udp')
  }

  #receiveByLink(link: Link, body: Uint8Array): void {
    const peer = this.#peers.get(link.peer)
    if (this.#isClosed || peer === undefined) return
    const letter = decodeLetter(body)
    if (letter === null) return link.close('the peer sent something that is no letter')
    this.#hear(peer)
    this.#takeNews(peer, letter)
    this.#answer(peer, letter, 'tcp')
  }

  #drop(why: string): void {
    this.#deps.observer.emit('packet.dropped', { why })
  }

  /** Only what was sent last is news: a delayed packet tells of the past. */
  #takeNews(peer: Peer, { incarnation, heard, items }: Letter): void {
    if (incarnation > peer.incarnation) {
      const isFirst = peer.incarnation === 0
      peer.incarnation = incarnation
      // It started anew or refuted: those who cannot hear it must learn of it.
      if (!isFirst) this.#spread({ kind: 'alive', node: peer.node, incarnation })
    }
    peer.told = heard
    // A packet that was held back could speak for a node that has died since.
    if (peer.life === 'dead') this.#probeSoon(peer)
    else this.#hear(peer)
    for (const item of items) {
      if (item.kind === 'alive' || item.kind === 'suspect') this.#takeWord(item)
      if (item.kind === 'links') this.#takeLinks(peer, item)
    }
  }

  #answer(peer: Peer, { items }: Letter, plane: Plane): void {
    for (const item of items) {
      switch (item.kind) {
        case 'ping':
          this.#send(peer, [{ kind: 'ack', probe: item.probe }], plane)
          if (plane === 'udp' && peer.told?.udp === false) {
            this.#send(peer, [{ kind: 'ack', probe: item.probe }], 'tcp')
          }
          break
        case 'ack':
          this.#takeAck(peer, item.probe, plane)
          break
        case 'nack':
          this.#probes.get(item.probe)?.silent.delete(peer.node)
          break
        case 'ask':
          this.#relay(peer, item.probe, item.target)
          break
      }
    }
  }

  #takeAck(from: Peer, id: ProbeId, plane: Plane): void {
    const relay = this.#relays.get(id)
    if (relay !== undefined) {
      relay.timer.cancel()
      this.#relays.delete(id)
      const asker = this.#peers.get(relay.of)
      if (asker !== undefined) this.#send(asker, [{ kind: 'ack', probe: relay.probe }])
      return
    }
    const probe = this.#probes.get(id)
    // Only the one that was asked, or one that was asked to ask it.
    if (probe === undefined || (probe.peer !== from && !probe.silent.has(from.node))) return
    this.#end(probe)
    const { peer } = probe
    if (probe.peer === from) {
      peer.acked = probe.heard
      if (plane === 'udp') measure(peer, this.#nowMono() - probe.sentMono)
    }
    this.#ail(-1)
    this.#hear(peer)
  }

  #relay(of: Peer, probe: ProbeId, target: NodeId): void {
    const peer = this.#peers.get(target)
    if (peer === undefined || this.#relays.size >= RELAYS_MAX) {
      this.#send(of, [{ kind: 'nack', probe }])
      return
    }
    const id = randomHex(this.#deps.random, 8)
    const timer = this.#after(directMs(peer), () => {
      this.#relays.delete(id)
      this.#send(of, [{ kind: 'nack', probe }])
    })
    this.#relays.set(id, { of: of.node, probe, timer })
    this.#ping(peer, id, { byLink: false, withLinks: false })
  }

  /**
   * The node in another run than the known one: restored from a snapshot, or a copy that runs
   * beside it. What lives is what answers a question that was asked just now.
   */
  #meetRival(peer: Peer, opened: Opened, from: PeerAddress): void {
    const isProven = opened.letter.items.some((item) => {
      const probe = item.kind === 'ack' ? this.#probes.get(item.probe) : undefined
      if (probe?.peer !== peer) return false
      this.#end(probe)
      return true
    })
    const nowMono = this.#nowMono()
    if (isProven && peer.life !== 'alive') {
      this.#packets.adopt(opened)
      peer.rival = null
      peer.source = from
      peer.heardUdpMono = nowMono
      peer.told = opened.letter.heard
      this.#hear(peer)
    } else if (isProven) {
      if (peer.rival !== null) peer.rival.isProven = true
    } else if (peer.rival === null || nowMono - peer.rival.askedMono > RIVAL_MS) {
      peer.rival = { askedMono: nowMono, address: `${from.host} ${from.port}`, isProven: false }
      const probe = this.#newProbe(peer)
      probe.timer = this.#limit(INDIRECT_MS, () => this.#end(probe))
      this.#sendTo(from, peer, [{ kind: 'ping', probe: probe.id }])
    }
  }

  /** The known run speaks after a rival has proved that it lives: two machines are one node. */
  #sayWhenDoubled(peer: Peer): void {
    if (peer.rival?.isProven !== true) return
    const { address } = peer.rival
    peer.rival.isProven = false
    this.#deps.observer.emit('member.doubled', { peer: peer.node, name: peer.member.name, address })
  }

  // ---- gossip ----

  #takeWord({ kind, node, incarnation }: Word): void {
    if (incarnation > INCARNATION_MAX - 0x1_0000) return
    if (node === this.#roster.self.node) {
      if (kind === 'suspect') this.#refute(incarnation)
      return
    }
    const peer = this.#peers.get(node)
    if (peer === undefined || incarnation < peer.incarnation) return
    const isNewer = incarnation > peer.incarnation
    peer.incarnation = incarnation
    if (kind === 'alive') this.#takeAlive(peer, isNewer)
    else this.#takeSuspicion(peer)
  }

  /** Only the node itself moves its incarnation on: it lived after it was accused. */
  #takeAlive(peer: Peer, isNewer: boolean): void {
    if (isNewer) this.#spread({ kind: 'alive', node: peer.node, incarnation: peer.incarnation })
    if (isNewer && peer.life !== 'alive') this.#hear(peer)
    else if (peer.life !== 'alive') this.#probeSoon(peer)
  }

  #takeSuspicion(peer: Peer): void {
    if (peer.life !== 'alive') return
    const nowMono = this.#nowMono()
    const silentMs = nowMono - (peer.heardMono ?? Number.NEGATIVE_INFINITY)
    if (silentMs >= SUSPECT_MS) this.#accuse(peer)
    else if (peer.warnedMono === null || nowMono - peer.warnedMono > WARN_MS) {
      // We knew better a moment ago. If it lives, it must hear of it, so that it can refute;
      // perhaps only others can tell it.
      peer.warnedMono = nowMono
      const word: Word = { kind: 'suspect', node: peer.node, incarnation: peer.incarnation }
      this.#spread(word)
      this.#send(peer, [word])
      this.#probe(peer)
    }
  }

  /** An accusation that was refuted before: its author has not heard of it. */
  #refute(accused: number): void {
    if (accused >= this.#incarnation) {
      this.#incarnation = accused + 1
      this.#ail(1)
    }
    const { node } = this.#roster.self
    this.#spread({ kind: 'alive', node, incarnation: this.#incarnation })
  }

  #spread(word: Word): void {
    this.#rumours.spread(word, this.#everybody.length)
    this.#gossiping ??= this.#after(0, () => this.#gossip())
  }

  #gossip(): void {
    this.#gossiping = null
    if (this.#rumours.isEmpty) return
    const living = [...this.#peers.values()].filter(({ life }) => life !== 'dead')
    if (living.length === 0) return
    this.#gossiping = this.#after(GOSSIP_MS, () => this.#gossip())
    for (const peer of this.#shuffled(living).slice(0, GOSSIP_TO)) this.#send(peer, [])
  }

  /** Asks a dead one out of turn: somebody says that it lives. */
  #probeSoon(peer: Peer): void {
    if (peer.probe !== null) return
    peer.retryMs = DEAD_MS.first
    this.#probe(peer)
  }

  // ---- the ways of each ----

  #linksFor(peer: Peer): Item[] {
    const nowMono = this.#nowMono()
    if (nowMono - peer.linksToldMono < LINKS_MS) return []
    peer.linksToldMono = nowMono
    const first = peer.linksNext < this.#everybody.length ? peer.linksNext : 0
    const part = this.#everybody.slice(first, first + LINKS_AT_ONCE)
    peer.linksNext = first + part.length
    const links = part.map((node) => {
      const other = this.#peers.get(node)
      return other === undefined ? UNKNOWN : this.#sightOf(other)
    })
    return [{ kind: 'links', rosterHash: this.#rosterHash, first, links }]
  }

  #takeLinks(peer: Peer, { rosterHash, first, links }: Extract<Item, { kind: 'links' }>): void {
    if (rosterHash !== this.#rosterHash) return
    for (const [index, sight] of links.entries()) {
      const node = this.#everybody[first + index]
      if (node !== undefined && node !== peer.node) peer.sights.set(node, sight)
    }
  }

  /** Once for each peer: the link goes and datagrams do not. */
  #sayWhenMute(peer: Peer): void {
    const { udp, tcp } = this.#heardOf(peer)
    if (udp) peer.isMuteSaid = false
    if (udp || !tcp || peer.isMuteSaid || peer.life !== 'alive') return
    if (this.#nowMono() - peer.sinceMono < this.#udpWindowMs()) return
    peer.isMuteSaid = true
    this.#deps.observer.emit('member.muted', { peer: peer.node, name: peer.member.name })
  }

  // ---- sending ----

  /** Datagrams go both ways, as far as is known. */
  #passesUdp(peer: Peer): boolean {
    const nowMono = this.#nowMono()
    const sinceMono = peer.heardUdpMono ?? Math.max(this.#startMono, peer.sinceMono)
    return peer.told?.udp !== false && nowMono - sinceMono < this.#udpWindowMs()
  }

  /** By the plane that works, when none is named. Loss is normal: nothing is sent again. */
  #send(peer: Peer, items: readonly Item[], plane?: Plane): void {
    const link = this.#links.get(peer.node)
    const way = plane ?? (link === null || this.#passesUdp(peer) ? 'udp' : 'tcp')
    if (way === 'udp') this.#sendTo(this.#addressOf(peer), peer, items)
    else link?.send(MESSAGE.gossip, encodeLetter(this.#letterFor(peer, items)))
  }

  #sendTo(address: PeerAddress | null, peer: Peer, items: readonly Item[]): void {
    if (address === null) return
    const packet = this.#packets.seal(peer.node, this.#letterFor(peer, items))
    if (packet !== null) this.#socket?.send(packet, address)
  }

  #letterFor(peer: Peer, items: readonly Item[]): Letter {
    // What is sent to one that perhaps does not hear it does not count as told.
    const { udp, tcp } = this.#sightOf(peer)
    const isHeard = peer.life === 'alive' && (udp.works === true || tcp.works === true)
    const words: Item[] = this.#rumours.take(WORDS_MAX, isHeard)
    // Who is accused hears of it first, and can refute (Lifeguard's buddy system).
    if (peer.life !== 'alive' && peer.incarnation > 0) {
      words.push({ kind: 'suspect', node: peer.node, incarnation: peer.incarnation })
    }
    return {
      incarnation: this.#incarnation,
      heard: this.#heardOf(peer),
      items: [...items, ...words],
    }
  }

  #addressOf(peer: Peer): PeerAddress | null {
    const { peer: addresses } = peer.member
    return peer.source ?? addresses[peer.turn % Math.max(1, addresses.length)] ?? null
  }

  #shuffled(peers: Peer[]): Peer[] {
    for (let at = peers.length - 1; at > 0; at -= 1) {
      const other = this.#deps.random.below(at + 1)
      const held = peers[at] as Peer
      peers[at] = peers[other] as Peer
      peers[other] = held
    }
    return peers
  }
}

const UNKNOWN: LinkSight = {
  tcp: { works: null, ms: null },
  udp: { works: null, ms: null },
}

/** By datagram; its link is heard in any case. */
function silentSince({ askedMono, heardUdpMono }: Peer): number {
  return Math.max(askedMono, heardUdpMono ?? 0)
}

/** Jacobson's estimate (RFC 6298 section 2), within bounds. */
function directMs({ roundTripMs, variationMs }: Peer): number {
  if (roundTripMs === null) return DIRECT_MS.first
  return Math.min(DIRECT_MS.most, Math.max(DIRECT_MS.least, roundTripMs + 4 * variationMs))
}

function measure(peer: Peer, tookMs: number): void {
  if (peer.roundTripMs === null) {
    peer.roundTripMs = tookMs
    peer.variationMs = tookMs / 2
    return
  }
  peer.variationMs = 0.75 * peer.variationMs + 0.25 * Math.abs(peer.roundTripMs - tookMs)
  peer.roundTripMs = 0.875 * peer.roundTripMs + 0.125 * tookMs
}

/** FNV-1a over the ids, 32 bits. */
function hashOf(nodes: readonly NodeId[]): number {
  let hash = 0x811c_9dc5
  for (const octet of Buffer.from(nodes.join(' '))) {
    hash = Math.imul(hash ^ octet, 0x0100_0193) >>> 0
  }
  return hash
}
