/**
 * Who lives: SWIM (Das et al., 2002) with Lifeguard (Dadgar et al., 2017), over datagrams and, in
 * parallel, over the links.
 *
 * Every second or so the peer is asked that was silent longest. One that does not answer is asked
 * again, also by way of others and by its link. After 5 s without any sign of life it is `suspect`
 * and everybody hears of it, the suspect too, which refutes by a higher incarnation; 10 s later it
 * is `dead`. Each node finds that itself: a verdict of others is only a suspicion here. The dead
 * are asked for ever, every few seconds, so that a partition heals by itself, however long it was.
 */
import type { Timer } from '../base/clock.ts'
import { assert } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import { randomHex, shuffled } from '../base/random.ts'
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
  INCARNATION_MAX,
  type Item,
  type Letter,
  type Plane,
  type ProbeId,
  type Word,
} from './letter.ts'
import { epochOf, type Opened, Packets, Sources } from './packet.ts'
import {
  deadMs,
  directMs,
  type LinkSight,
  measure,
  newPeer,
  type Peer,
  type Probe,
} from './peer.ts'
import { Post } from './post.ts'
import { Relays } from './relays.ts'
import { StallClock } from './stalls.ts'
import { Ways } from './ways.ts'

/** Between two questions; four packets per node in this time are what a quiet cluster costs. */
const PROBE_MS = 1_300
/** Waiting for an answer by way of others or by the link, after the direct one did not come. */
const INDIRECT_MS = 1_000
const ASKED_OTHERS = 3

/** No sign of life since the first question without an answer (design: cluster.md, mail.md). */
const SUSPECT_MS = 5_000
/** Then, times 1 to 2.75 by the health of this node. */
const SUSPICION_MS = 10_000
/** A member that nobody has heard yet. */
const UNHEARD_MS = SUSPECT_MS + SUSPICION_MS

/** Lifeguard's local health: 0 is well; each step is a sign that the fault is here. */
const HEALTH_MAX = 7
/** A node that others accuse and that we heard is told so at most once in this time. */
const WARN_MS = 2_000
/** Questions out of turn in one tick: news of the ways, quiet links. */
const EXTRA_PROBES = 3

/** Only once in this time is another run of a living node asked whether it lives too. */
const RIVAL_MS = 30_000

type Socket = Awaited<ReturnType<ClusterDeps['network']['datagrams']>>

export class MemberTable implements Members {
  readonly #roster: Roster
  readonly #links: Links
  readonly #deps: ClusterDeps
  readonly #clock: StallClock
  readonly #ways: Ways
  readonly #packets: Packets
  readonly #sources: Sources
  readonly #post: Post
  readonly #peers = new Map<NodeId, Peer>()
  readonly #probes = new Map<ProbeId, Probe>()
  readonly #relays: Relays
  readonly #listeners: ((liveness: Liveness, before: Life) => void)[] = []
  #socket: Socket | null = null
  /** Addresses of the roster. */
  #hosts: ReadonlySet<string> = new Set()
  #health = 0
  #ticking: Timer | null = null
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
    this.#clock = new StallClock(deps.clock, (ms) => {
      deps.observer.emit('member.stalled', { ms })
      this.#ail(1)
    })
    this.#ways = new Ways(links, this.#peers, PROBE_MS, this.#clock)
    this.#post = new Post({
      self: roster.self,
      links,
      ways: this.#ways,
      packets: this.#packets,
      peers: this.#peers,
      clock: this.#clock,
      random: deps.random,
      transmit: (packet, to) => this.#socket?.send(packet, to),
    })
    this.#relays = new Relays({
      peers: this.#peers,
      clock: this.#clock,
      random: deps.random,
      ping: (peer, probe) => this.#ping(peer, probe, { byLink: false, withLinks: false }),
      tell: (peer, item) => this.#post.send(peer, [item]),
    })
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
    this.#clock.stop()
    this.#socket?.close()
    this.#ticking?.cancel()
    this.#post.close()
    for (const peer of this.#peers.values()) this.#forget(peer)
    this.#peers.clear()
    this.#relays.close()
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
    return peer?.life === 'alive' && this.#ways.sightOf(peer).tcp.works === true
  }

  /**
   * How `node` reaches each other member, as it last told; this node's own ways are as they are
   * now. Null: not known, or the node is not in reach.
   */
  linksOf(node: NodeId): ReadonlyMap<NodeId, LinkSight> | null {
    if (node === this.#roster.self.node) {
      return new Map([...this.#peers.values()].map((peer) => [peer.node, this.#ways.sightOf(peer)]))
    }
    const peer = this.#peers.get(node)
    return peer === undefined || peer.life === 'dead' || peer.sights.size === 0 ? null : peer.sights
  }

  onChange(listener: (liveness: Liveness, before: Life) => void): void {
    this.#listeners.push(listener)
  }

  #livenessOf(peer: Peer): Liveness {
    const { node, life, sinceMono } = peer
    const { udp, tcp } = this.#ways.sightOf(peer)
    const link = this.#links.get(node)
    const heardMono = Math.max(peer.heardMono ?? -1, link?.heardMono ?? -1)
    const ackedBoot = Math.max(peer.ackedBoot ?? -1, link?.ackedBoot ?? -1)
    return {
      node,
      life,
      sinceMono,
      heardMono: heardMono < 0 ? null : heardMono,
      ackedBoot: ackedBoot < 0 ? null : ackedBoot,
      udp: udp.works,
      tcp: tcp.works,
      udpRoundTripMs: udp.ms,
    }
  }

  #ail(steps: number): void {
    this.#health = Math.min(HEALTH_MAX, Math.max(0, this.#health + steps))
  }

  // ---- who there is ----

  #start(): void {
    this.#deps.observer.gauge(
      'member_health',
      'Signs that this node is the slow one, 0 to 7',
      () => this.#health,
    )
    this.#roster.onChange(() => this.#followRoster())
    this.#links.onOpen((link) => {
      const peer = this.#peers.get(link.peer)
      if (peer === undefined) return
      this.#hear(peer)
      // It learns at once that the link goes both ways, also while a question to it is open.
      this.#post.send(peer, [], 'tcp')
      this.#probe(peer)
    })
    this.#links.onClose((link) => {
      // Perhaps its process ended: ask at once.
      const peer = this.#peers.get(link.peer)
      if (peer?.life === 'alive') this.#probe(peer)
    })
    this.#links.onMessage(MESSAGE.gossip, (link, body) => this.#receiveByLink(link, body))
    this.#followRoster()
    this.#ticking = this.#clock.after(this.#deps.random.below(PROBE_MS), () => this.#tick())
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
    this.#ways.follow([self, ...kept])
  }

  #meet(member: Member): void {
    const peer = newPeer(member, this.#clock.monoMs())
    this.#peers.set(member.node, peer)
    peer.verdict = this.#clock.limit(UNHEARD_MS, () => this.#bury(peer))
    peer.retry = this.#clock.after(this.#deps.random.below(500), () => this.#probe(peer))
  }

  /** Nothing of ours waits for it any more. */
  #forget(peer: Peer): void {
    peer.verdict?.cancel()
    peer.retry?.cancel()
    this.#post.forget(peer.node)
    for (const probe of this.#probes.values()) if (probe.peer === peer) this.#end(probe)
    // So that nothing that still holds it begins anew.
    peer.life = 'dead'
  }

  #isPeer(peer: Peer): boolean {
    return this.#peers.get(peer.node) === peer
  }

  // ---- asking ----

  #tick(): void {
    this.#ticking = this.#clock.after(PROBE_MS * (1 + this.#health), () => this.#tick())
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
    for (const peer of shuffled([...this.#peers.values()], this.#deps.random)) {
      if (peer.life !== 'alive' || peer.probe !== null) continue
      if (most === null || silentSince(peer) < silentSince(most)) most = peer
    }
    return most
  }

  /** It must learn how we hear it, or its link was quiet for long. */
  #isNewsFor(peer: Peer): boolean {
    if (peer.life !== 'alive') return false
    const heard = this.#ways.heardOf(peer)
    const isTold = peer.acked?.udp === heard.udp && peer.acked.tcp === heard.tcp
    return !isTold || this.#ways.isLinkQuiet(peer)
  }

  #probe(peer: Peer): void {
    if (peer.probe !== null || !this.#isPeer(peer)) return
    peer.retry?.cancel()
    const probe = this.#newProbe(peer)
    peer.probe = probe
    peer.askedMono = probe.sentMono
    this.#ping(peer, probe.id, { byLink: this.#ways.isLinkQuiet(peer), withLinks: true })
    probe.timer = this.#clock.limit(directMs(peer), () => this.#askOthers(probe))
  }

  #newProbe(peer: Peer): Probe {
    const probe: Probe = {
      id: randomHex(this.#deps.random, 8),
      peer,
      sentMono: this.#clock.monoMs(),
      sentBoot: this.#deps.clock.bootMs(),
      heard: this.#ways.heardOf(peer),
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
    if (options.withLinks) items.push(...this.#ways.itemsFor(peer))
    this.#post.send(peer, items, 'udp')
    if (options.byLink || !this.#ways.mayPassUdp(peer)) this.#post.send(peer, items, 'tcp')
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
    for (const other of shuffled(others, this.#deps.random).slice(0, ASKED_OTHERS)) {
      probe.silent.add(other.node)
      probe.asked += 1
      this.#post.send(other, [{ kind: 'ask', probe: probe.id, target: peer.node }])
    }
    if (this.#ways.mayPassUdp(peer))
      this.#post.send(peer, [{ kind: 'ping', probe: probe.id }], 'tcp')
    probe.timer = this.#clock.limit(INDIRECT_MS, () => this.#fail(probe))
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
      const leftMs = Math.max(0, probe.sentMono + SUSPECT_MS - this.#clock.monoMs())
      peer.verdict = this.#clock.limit(leftMs, () => this.#suspect(peer))
    }
    this.#askAgain(peer)
  }

  #askAgain(peer: Peer): void {
    peer.retry?.cancel()
    peer.retry = this.#clock.after(this.#pauseMs(peer), () => this.#probe(peer))
  }

  #pauseMs({ life, askedMono }: Peer): number {
    const chance = this.#deps.random.below(1_000) / 1_000
    if (life === 'alive') return 125 * (1 + chance)
    if (life === 'suspect') return 500 * (1 + chance)
    const dueMono = askedMono + deadMs(this.#peers.size + 1, chance)
    return Math.max(0, dueMono - this.#clock.monoMs())
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
    peer.heardMono = this.#clock.monoMs()
    if (peer.life === 'alive' && peer.doubtMono === null) return
    peer.doubtMono = null
    peer.verdict?.cancel()
    peer.retry?.cancel()
    if (peer.life === 'alive') return
    this.#change(peer, 'alive')
    this.#post.resume()
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
    this.#post.spread({ kind: 'suspect', node: peer.node, incarnation: peer.incarnation })
    peer.verdict = this.#clock.limit(SUSPICION_MS * (1 + this.#health / 4), () => this.#bury(peer))
    if (peer.probe === null) this.#askAgain(peer)
  }

  /** The first time, perhaps nobody heard it who could tell the accused. */
  #accuseAgain(peer: Peer): void {
    const { node, incarnation } = peer
    if (incarnation > 0) this.#post.spread({ kind: 'suspect', node, incarnation })
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
    peer.sinceMono = this.#clock.monoMs()
    this.#deps.observer.emit('member.judged', { peer: peer.node, life, before })
    this.#tell(peer, before)
  }

  #tell(peer: Peer, before: Life): void {
    const liveness = this.#livenessOf(peer)
    for (const listener of this.#listeners) listener(liveness, before)
  }

  // ---- what comes in ----

  #receive(bytes: Uint8Array, from: PeerAddress): void {
    if (!this.#sources.admit(from.host, this.#hosts.has(from.host))) return this.#drop('flood')
    const opened = this.#packets.open(bytes)
    if (typeof opened === 'string') return this.#drop(opened)
    const peer = this.#peers.get(opened.from)
    if (peer === undefined) return
    if (opened.order === 'rival') return this.#meetRival(peer, opened, from)
    if (opened.order === 'first') return this.#greet(peer, opened, from)
    if (opened.order === 'next') {
      peer.source = from
      peer.heardUdpMono = this.#clock.monoMs()
      this.#sayWhenDoubled(peer)
      this.#takeNews(peer, opened.letter, 'udp')
    }
    this.#answer(peer, opened.letter, 'udp')
  }

  #receiveByLink(link: Link, body: Uint8Array): void {
    const peer = this.#peers.get(link.peer)
    if (peer === undefined) return
    const letter = decodeLetter(body)
    if (letter === null) return link.close('the peer sent something that is no letter')
    this.#hear(peer)
    this.#takeNews(peer, letter, 'tcp')
    this.#answer(peer, letter, 'tcp')
  }

  #drop(why: string): void {
    this.#deps.observer.emit('packet.dropped', { why })
  }

  /** Only what was sent last is news: a delayed packet tells of the past. */
  #takeNews(peer: Peer, letter: Letter, plane: Plane): void {
    const { incarnation, items } = letter
    if (peer.incarnation === 0) peer.incarnation = incarnation
    if (incarnation > peer.incarnation) this.#moveOn(peer, incarnation)
    const wasUsable = this.isUsable(peer.node)
    const isToBeAsked = !this.#ways.takeHeard(peer, letter, plane, this.#probes)
    if (this.isUsable(peer.node) !== wasUsable) this.#tell(peer, peer.life)
    // A packet that was held back could speak for a node that has died since.
    if (peer.life === 'dead' || isToBeAsked) this.#probe(peer)
    if (peer.life !== 'dead') this.#hear(peer)
    for (const item of items) {
      if (item.kind === 'alive' || item.kind === 'suspect') this.#takeWord(item)
      if (item.kind === 'links') this.#ways.take(peer, item)
    }
  }

  #answer(peer: Peer, { items }: Letter, plane: Plane): void {
    for (const item of items) {
      switch (item.kind) {
        case 'ping':
          this.#post.send(peer, [{ kind: 'ack', probe: item.probe }], plane)
          if (plane === 'udp' && peer.told?.udp === false) {
            this.#post.send(peer, [{ kind: 'ack', probe: item.probe }], 'tcp')
          }
          break
        case 'ack':
          this.#takeAck(peer, item.probe, plane)
          break
        case 'nack':
          this.#probes.get(item.probe)?.silent.delete(peer.node)
          break
        case 'ask':
          this.#relays.ask(peer, item.probe, item.target)
          break
      }
    }
  }

  #takeAck(from: Peer, id: ProbeId, plane: Plane): void {
    if (this.#relays.answered(id)) return
    const probe = this.#probes.get(id)
    // Only the one that was asked, or one that was asked to ask it.
    if (probe === undefined || (probe.peer !== from && !probe.silent.has(from.node))) return
    this.#end(probe)
    const { peer } = probe
    if (probe.peer === from) {
      peer.acked = probe.heard
      peer.ackedBoot = Math.max(peer.ackedBoot ?? 0, probe.sentBoot)
      if (plane === 'udp') measure(peer, this.#clock.monoMs() - probe.sentMono)
    }
    this.#ail(-1)
    this.#hear(peer)
  }

  /**
   * It does not know this run yet: it started just now, or somebody repeats what it sent before
   * this run did. It is answered and asked; what it says to this run counts.
   */
  #greet(peer: Peer, opened: Opened, from: PeerAddress): void {
    for (const item of opened.letter.items) {
      if (item.kind !== 'ping') continue
      return this.#askRun(peer, opened, from, [{ kind: 'ack', probe: item.probe }])
    }
  }

  /** Asks just this run, where it spoke from. */
  #askRun(peer: Peer, { instance }: Opened, at: PeerAddress, answers: readonly Item[]): void {
    const probe = this.#newProbe(peer)
    probe.timer = this.#clock.limit(INDIRECT_MS, () => this.#end(probe))
    this.#post.sendTo(at, peer, [...answers, { kind: 'ping', probe: probe.id }], instance)
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
    const nowMono = this.#clock.monoMs()
    const rivalMs = peer.life === 'alive' ? RIVAL_MS : INDIRECT_MS
    if (isProven && peer.life !== 'alive') {
      this.#packets.adopt(opened)
      peer.rival = null
      peer.source = from
      peer.heardUdpMono = nowMono
      peer.told = { ...opened.letter.heard, saidMono: null }
      this.#hear(peer)
    } else if (isProven) {
      if (peer.rival !== null) peer.rival.isProven = true
    } else if (peer.rival === null || nowMono - peer.rival.askedMono > rivalMs) {
      peer.rival = { askedMono: nowMono, address: `${from.host} ${from.port}`, isProven: false }
      this.#askRun(peer, opened, from, [])
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
      if (kind === 'suspect' && this.#post.refute(incarnation)) this.#ail(1)
      return
    }
    const peer = this.#peers.get(node)
    if (peer === undefined || incarnation < peer.incarnation) return
    if (kind === 'alive') return this.#takeAlive(peer, incarnation)
    peer.incarnation = incarnation
    this.#takeSuspicion(peer)
  }

  /** Only the node itself moves its incarnation on: it lived after it was accused. */
  #takeAlive(peer: Peer, incarnation: number): void {
    const isNewer = incarnation > peer.incarnation
    if (isNewer) this.#moveOn(peer, incarnation)
    if (isNewer && peer.life !== 'alive') this.#hear(peer)
    else if (peer.life !== 'alive') this.#probeSoon(peer)
  }

  /** It refuted or started anew: who cannot hear it must learn of it, and who dials it here. */
  #moveOn(peer: Peer, incarnation: number): void {
    const { node, life } = peer
    const isAnew = epochOf({ incarnation }) > epochOf(peer)
    peer.incarnation = incarnation
    this.#post.spread({ kind: 'alive', node, incarnation })
    if (isAnew && life === 'alive') this.#tell(peer, life)
  }

  #takeSuspicion(peer: Peer): void {
    if (peer.life !== 'alive') return
    const nowMono = this.#clock.monoMs()
    const silentMs = nowMono - (peer.heardMono ?? Number.NEGATIVE_INFINITY)
    if (silentMs >= SUSPECT_MS) this.#accuse(peer)
    else if (peer.warnedMono === null || nowMono - peer.warnedMono > WARN_MS) {
      // We knew better a moment ago. If it lives, it must hear of it, so that it can refute;
      // perhaps only others can tell it.
      peer.warnedMono = nowMono
      const word: Word = { kind: 'suspect', node: peer.node, incarnation: peer.incarnation }
      this.#post.spread(word)
      this.#post.send(peer, [word])
      this.#probe(peer)
    }
  }

  /** Asks a dead one out of turn: somebody says that it lives. */
  #probeSoon(peer: Peer): void {
    if (peer.probe === null) this.#probe(peer)
  }

  /** Once for each peer: the link goes and datagrams do not. */
  #sayWhenMute(peer: Peer): void {
    if (!this.#ways.isMute(peer)) {
      if (this.#ways.heardOf(peer).udp) peer.isMuteSaid = false
    } else if (!peer.isMuteSaid) {
      peer.isMuteSaid = true
      this.#deps.observer.emit('member.muted', { peer: peer.node, name: peer.member.name })
    }
  }
}

/** By datagram; its link is heard in any case. */
function silentSince({ askedMono, heardUdpMono }: Peer): number {
  return Math.max(askedMono, heardUdpMono ?? 0)
}
