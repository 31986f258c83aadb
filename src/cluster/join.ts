/**
 * How a node becomes a member: both sides of it. The new node dials who issued its token, over a
 * channel that only the holder of the token and the issuer can open (Noise IKpsk2), and asks; the
 * issuer looks whether it can be reached, lets it in with one commit, and gives it the members.
 * Whatever stands in the way is told in words, and spends no token.
 */
import { isoTime } from '../base/clock.ts'
import { GatewayError, messageOf, type RefusalCode, RefusalError } from '../base/errors.ts'
import { type NodeId, parseNodeId } from '../base/ids.ts'
import type { Raw } from '../base/raw.ts'
import { canonicalText } from '../config/merge.ts'
import type { WireRow } from '../store/feed.ts'
import type { IssuedTokens } from '../store/invitations.ts'
import type { SharedRows } from '../store/shared.ts'
import { readSharedRow } from '../store/shared-row.ts'
import type { SecureChannel } from './channel.ts'
import type { ClusterDeps, PeerAddress, Self } from './contract.ts'
import { clearJoined, type Joined, storeJoined } from './identity.ts'
import { joinBytes } from './inbox.ts'
import type { Invitations } from './invite.ts'
import { isSigned, KEY_BYTES, signText } from './keys.ts'
import { answerProbes, type Reach, reach } from './reach.ts'
import {
  type Applicant,
  addressesOf,
  isPort,
  MEMBER_KIND,
  type MemberFacts,
  MemberReader,
  type MemberRoster,
} from './roster.ts'
import { ChannelError, dialSecure, type JoinGate, type ProtocolRange } from './secure.ts'
import { hexOf, type JoinToken, pskOf, readToken } from './token.ts'

/** Messages on the channel of a join. Numbers are the wire's. */
const JOIN = { ask: 1, rows: 2, welcome: 3, refusal: 4 } as const
/** A clock that is further off makes rows of the future, which every other node puts aside. */
const CLOCK_MS_MAX = 10_000
/** All of a join at one side: probes, a commit, the rows. */
const JOIN_MS_MAX = 20_000
/** Joins at a time; each costs two probes of each address. */
const JOINS_MAX = 8
/** The address that was seen, and as many that the node says it has. */
const CANDIDATES_MAX = 5
const ROWS_BYTES_MAX = 256 * 1024
/** Rows of all members: hundreds of nodes have some 600 bytes in each of four. */
const ROWS_MAX = 20_000
const NAME_MAX = 63

// ---- the node that joins ----

export type JoinOptions = {
  readonly self: Self
  /** What this node is a member of now. */
  readonly clusterId: string
  /** Members of it, this node included. */
  readonly members: number
  /** What the other cluster's rows would replace. */
  readonly own: { readonly operators: number; readonly domains: number }
  /** They may be replaced. */
  readonly discard: boolean
  /** Free for as long as this takes: the issuer looks whether it can be reached. */
  readonly listen: PeerAddress
  /** A port of 0 in `peer` is that of `listen`. */
  readonly facts: MemberFacts
  readonly protocol: ProtocolRange
}

/**
 * Asks to be let in. Changes nothing here; see `finishJoin`.
 * @throws RefusalError in words that name the remedy
 */
export async function joinCluster(
  tokenText: string,
  options: JoinOptions,
  deps: ClusterDeps,
): Promise<Joined> {
  const token = readToken(tokenText)
  mayJoin(token, options)
  const probeKey = deps.random.bytes(KEY_BYTES)
  const probed = await answerProbes(options.listen, probeKey, deps)
  try {
    const channel = await dialIssuer(token, options, deps)
    const wallMs = deps.clock.wallMs()
    const ask = { ...askOf(options, probed.port), probeKey: encode(probeKey), wallMs }
    const signed = signedAsk(ask, options.self, channel)
    return await asked(channel, { token, node: options.self.node, ask: signed }, deps)
  } finally {
    probed.close()
  }
}

/**
 * Takes the place in the cluster that `joinCluster` gave: own shared rows go, those of the members
 * come. Owned rows of the kinds in `keep` stay, as held mail does. Safe to do again after a crash,
 * at the next start, before anything reads the rows. @throws StoreError
 */
export function finishJoin(
  directory: string,
  joined: Joined,
  keep: readonly string[],
  stores: { readonly state: SharedRows; readonly issued: IssuedTokens },
): void {
  const { state, issued } = stores
  storeJoined(directory, joined)
  state.transact(() => {
    state.reset(keep)
    // They were for the cluster that this node leaves.
    issued.clear()
    state.apply({ peer: joined.issuer, rows: joined.rows, as: { kind: 'repair' } })
  })
  clearJoined(directory)
}

/** @throws RefusalError when the node is in a cluster already, or would lose what it has */
export function mayJoin(
  token: JoinToken,
  {
    clusterId,
    members,
    own,
    discard,
  }: Pick<JoinOptions, 'clusterId' | 'members' | 'own' | 'discard'>,
): void {
  if (token.clusterId === clusterId) {
    throw new RefusalError(
      'conflict',
      'token',
      'This node is already a member of the cluster of this token.',
      'Nothing is left to do; "postern status" shows its nodes.',
    )
  }
  if (members > 1) {
    throw new RefusalError(
      'conflict',
      'token',
      `This node is already a member of a cluster of ${members} nodes.`,
      'Leave that one first, with "postern leave".',
    )
  }
  const { operators, domains } = own
  if (discard || operators + domains === 0) return
  throw new RefusalError(
    'conflict',
    'discard',
    `This node has settings of its own (${counted(operators, 'operator')}, ${counted(domains, 'domain')}); those of the cluster would replace them.`,
    'Join with --discard if that is wanted. Mail that is held or queued here stays.',
  )
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

function askOf({ self, facts }: JoinOptions, port: number): Raw {
  const { name, smtp, web, version, features } = facts
  const peer = facts.peer.map((one) => ({ ...one, port: one.port === 0 ? port : one.port }))
  const sign = encode(self.keys.sign.public)
  return { node: self.node, sign, port, name, peer, smtp, web, version, features }
}

/** Bound to this channel: nobody else can say the same anywhere else. */
function signedAsk(ask: Raw, self: Self, channel: SecureChannel): Uint8Array {
  const signature = encode(signText(self.keys, askText(ask, channel)))
  return toBytes({ ...ask, signature })
}

function askText(ask: Raw, { handshakeHash }: SecureChannel): Uint8Array {
  return joinBytes(handshakeHash, new TextEncoder().encode(`postern join\n${canonicalText(ask)}`))
}

/** The more a failure says of the node behind an address, the further down. */
const FAILURES = ['unreachable', 'silent', 'hungUp', 'wrongKey', 'refused'] as const

async function dialIssuer(
  token: JoinToken,
  { self, protocol }: JoinOptions,
  deps: ClusterDeps,
): Promise<SecureChannel> {
  const purpose = {
    pattern: 'IKpsk2',
    tokenId: new Uint8Array(Buffer.from(token.id, 'hex')),
    psk: pskOf(token.clusterId, token.secret),
  } as const
  const options = {
    own: self.keys.exchange,
    clusterId: token.clusterId,
    protocol,
    parallelCrypto: false,
    purpose,
    peer: token.issuer,
    greeting: new Uint8Array(0),
  }
  let worst: { readonly error: ChannelError; readonly at: string } | null = null
  for (const address of token.addresses) {
    try {
      return await dialSecure(deps.network, address, options, deps)
    } catch (error) {
      if (!(error instanceof ChannelError)) throw error
      const rank = FAILURES.indexOf(error.failure)
      if (worst === null || rank > FAILURES.indexOf(worst.error.failure)) {
        worst = { error, at: placeOf(address) }
      }
    }
  }
  throw dialRefusal(worst?.error ?? null, worst?.at ?? '', token)
}

function dialRefusal(error: ChannelError | null, at: string, token: JoinToken): RefusalError {
  const refused = (code: RefusalCode, message: string, advice: string) =>
    new RefusalError(code, 'token', message, advice)
  const anew = 'Make a new token with "postern invite" on a node that is in reach.'
  switch (error?.failure) {
    case 'wrongKey':
      return refused(
        'forbidden',
        `Who answers at ${at} is not the node that issued the token: its key is another one.`,
        `Somebody may be in between, or that node was made anew. Look there first; then: ${anew}`,
      )
    case 'hungUp':
      return refused(
        'forbidden',
        `The node at ${at} does not take this token: it did not issue it, has forgotten it, belongs to another cluster, or is not who it was.`,
        anew,
      )
    case 'refused':
      return refused(
        'conflict',
        `The node at ${at} runs a version that does not speak with this one${rangeOf(error)}.`,
        'Upgrade the older one; neighbouring versions speak with each other.',
      )
    default:
      return refused(
        'unavailable',
        `The node that issued the token does not answer at ${token.addresses.map(placeOf).join(', ')}${error === null ? '' : ` (${error.message})`}.`,
        `Open its port for peers, TCP and UDP, to this node. Or: ${anew}`,
      )
  }
}

function rangeOf({ protocol }: ChannelError): string {
  return protocol === null ? '' : ` (it speaks protocol ${protocol.min} to ${protocol.max})`
}

/** Sends the request; what the issuer says to it. */
function asked(
  channel: SecureChannel,
  given: { readonly token: JoinToken; readonly node: NodeId; readonly ask: Uint8Array },
  { clock }: ClusterDeps,
): Promise<Joined> {
  const { token, node, ask } = given
  return new Promise((resolve, reject) => {
    const rows: WireRow[] = []
    const timer = clock.after(JOIN_MS_MAX, () => end(silent()))
    const end = (error: Error): void => {
      timer.cancel()
      // First: the end of the channel is told here too, and is not why.
      reject(error)
      channel.terminate('the join is over')
    }
    channel.send(JOIN.ask, ask)
    channel.start({
      message: (type, body) => {
        const said = fieldsOf(body)
        if (type === JOIN.refusal) return end(toldRefusal(said))
        if (type === JOIN.rows) {
          const more = said?.['rows']
          if (!Array.isArray(more) || rows.length + more.length > ROWS_MAX) return end(garbled())
          rows.push(...more)
        } else if (type === JOIN.welcome) {
          const issuer = parseNodeId(String(said?.['issuer']))
          const name = said?.['name']
          if (issuer === null || !isText(name, NAME_MAX)) return end(garbled())
          if (!isMemberIn(rows, token.clusterId, node)) return end(garbled())
          timer.cancel()
          // First: the other side may have hung up already, and then the end is told at once.
          resolve({ clusterId: token.clusterId, issuer, name, rows })
          channel.end()
        }
      },
      closed: (why) => end(silent(why)),
    })
  })
}

/**
 * Whether the rows make this node a member of the cluster: they replace what it has, so they are
 * looked at before.
 */
function isMemberIn(rows: readonly WireRow[], clusterId: string, node: NodeId): boolean {
  try {
    const reader = new MemberReader(clusterId, () => {})
    return reader.read(rows.map(readSharedRow)).get(node)?.standing === 'member'
  } catch (error) {
    if (error instanceof RefusalError) return false
    throw error
  }
}

function silent(why = 'no answer in time'): RefusalError {
  return new RefusalError(
    'unavailable',
    'token',
    `The node that issued the token did not finish the join (${why}).`,
    'Try again with the same token: if it had let this node in, it does so again.',
  )
}

function garbled(): RefusalError {
  return new RefusalError(
    'unavailable',
    'token',
    'The answer of the node that issued the token cannot be read.',
    'Run the same version on both, or neighbouring ones.',
  )
}

const CODES: readonly RefusalCode[] = ['invalid', 'conflict', 'forbidden', 'unavailable', 'locked']

/** The issuer's words; it is who the token names, but what it sends is checked all the same. */
function toldRefusal(said: Raw | null): RefusalError {
  const { code, field, message, advice } = said ?? {}
  if (typeof message !== 'string' || typeof advice !== 'string') return garbled()
  return new RefusalError(
    CODES.find((known) => known === code) ?? 'forbidden',
    typeof field === 'string' ? field.slice(0, 100) : null,
    message.slice(0, 1_000),
    advice.slice(0, 1_000),
  )
}

// ---- the node that issued the token ----

type DoorOptions = {
  readonly roster: MemberRoster
  readonly state: SharedRows
  readonly invitations: Invitations
  /** Where this node listens for peers: probes leave from there. */
  readonly listen: PeerAddress
}

type Asked = {
  readonly applicant: Applicant
  readonly port: number
  readonly wallMs: number
  readonly probeKey: Uint8Array
}

/** Lets nodes in that hold a token of this one. The gate of the links calls it. */
export class JoinDoor implements JoinGate {
  readonly #options: DoorOptions
  readonly #deps: ClusterDeps
  #open = 0

  constructor(options: DoorOptions, deps: ClusterDeps) {
    this.#options = options
    this.#deps = deps
  }

  pskOf(tokenId: Uint8Array): Uint8Array | null {
    return this.#options.invitations.pskOf(tokenId)
  }

  failed(tokenId: Uint8Array): void {
    this.#options.invitations.failed(tokenId)
  }

  opened(channel: SecureChannel, tokenId: Uint8Array, joiner: Uint8Array): void {
    if (this.#open >= JOINS_MAX) return this.#refuse(channel, tokenId, crowded())
    this.#open += 1
    let isAsked = false
    const timer = this.#deps.clock.after(JOIN_MS_MAX, () => channel.terminate('too slow'))
    channel.start({
      message: (type, body) => {
        // One question on a channel; whatever comes after it is not read.
        if (type !== JOIN.ask || isAsked) return
        isAsked = true
        this.#letIn(channel, tokenId, joiner, body).catch((error) =>
          this.#refuse(channel, tokenId, error),
        )
      },
      closed: () => {
        this.#open -= 1
        timer.cancel()
      },
    })
  }

  async #letIn(
    channel: SecureChannel,
    tokenId: Uint8Array,
    joiner: Uint8Array,
    body: Uint8Array,
  ): Promise<void> {
    const { roster, invitations } = this.#options
    const { applicant, port, wallMs, probeKey } = readAsk(body, channel, joiner)
    const name = invitations.check(tokenId, applicant.node) ?? applicant.name
    this.#refuseClock(wallMs)
    roster.mayAdmit(applicant)
    const peer = await this.#reached(channel.remote, { applicant, port, probeKey })
    invitations.redeem(tokenId, { ...applicant, name, peer })
    this.#deps.observer.emit('join.accepted', { node: applicant.node, name, token: hexOf(tokenId) })
    this.#welcome(channel, name)
  }

  #refuseClock(wallMs: number): void {
    const nowMs = this.#deps.clock.wallMs()
    const offsetMs = wallMs - nowMs
    if (Math.abs(offsetMs) <= CLOCK_MS_MAX) return
    throw new RefusalError(
      'conflict',
      'clock',
      `The clock of this node is ${Math.round(Math.abs(offsetMs) / 1_000)} s ${offsetMs > 0 ? 'ahead of' : 'behind'} that of the cluster (${isoTime(nowMs)}).`,
      'Fix NTP on this node, then join again with the same token.',
    )
  }

  /** Its addresses, that which was reached first. @throws RefusalError when none is */
  async #reached(
    remote: PeerAddress,
    { applicant, port, probeKey }: Omit<Asked, 'wallMs'>,
  ): Promise<readonly PeerAddress[]> {
    const seen = { host: remote.host, port }
    const listed = applicant.peer
      .slice(0, CANDIDATES_MAX - 1)
      .filter((one) => placeOf(one) !== placeOf(seen))
    const candidates = [seen, ...listed]
    const { listen } = this.#options
    const found = await Promise.all(
      candidates.map((address) => reach(address, listen, probeKey, this.#deps)),
    )
    const good = candidates.filter((_, at) => isReached(found[at]))
    if (good.length === 0) throw unreached(candidates, found)
    const rest = listed.filter((one) => !good.includes(one))
    // On loopback only this machine finds it: what it lists is worth more to the others.
    const isLocal = ({ host }: PeerAddress) => Number(host === '::1' || host.startsWith('127.'))
    return [...good, ...rest].sort((a, b) => isLocal(a) - isLocal(b))
  }

  #welcome(channel: SecureChannel, name: string): void {
    const { roster, state } = this.#options
    const names = state.list(MEMBER_KIND).map(({ key }) => `${MEMBER_KIND}/${key}`)
    let rows: WireRow[] = []
    let bytes = 0
    const flush = (): void => {
      channel.send(JOIN.rows, toBytes({ rows }))
      rows = []
      bytes = 0
    }
    for (const row of state.rowsOf(names)) {
      rows.push(row)
      bytes += JSON.stringify(row).length
      if (bytes >= ROWS_BYTES_MAX) flush()
    }
    flush()
    channel.send(JOIN.welcome, toBytes({ issuer: roster.self.node, name }))
    channel.end()
  }

  #refuse(channel: SecureChannel, tokenId: Uint8Array, error: unknown): void {
    const refusal = error instanceof RefusalError ? error : failed(error)
    const { code, field, message, advice } = refusal
    const fields = { token: hexOf(tokenId), remote: channel.remote.host, code, why: message }
    this.#deps.observer.emit('join.refused', fields)
    channel.send(JOIN.refusal, toBytes({ code, field, message, advice }))
    channel.end()
  }
}

/** @throws RefusalError for what is not a request of who holds the key of the channel */
function readAsk(body: Uint8Array, channel: SecureChannel, joiner: Uint8Array): Asked {
  const fields = fieldsOf(body)
  if (fields === null) throw unreadable()
  const { signature, ...ask } = fields
  const { node, sign, port, name, peer, smtp, web, version, features, wallMs, probeKey } = ask
  const id = parseNodeId(String(node))
  const [key, mark, probe] = [sign, signature, probeKey].map(decode)
  if (id === null || !key || !mark || !probe) throw unreadable()
  if (!isSigned(key, askText(ask, channel), mark)) throw unreadable()
  if (!isPort(port) || typeof wallMs !== 'number' || !Number.isFinite(wallMs)) throw unreadable()
  if (!isText(name, NAME_MAX) || name === '' || !isText(smtp, 300) || !isText(web, 300)) {
    throw unreadable()
  }
  if (!isText(version, 100) || !Array.isArray(features) || features.length > 100) {
    throw unreadable()
  }
  const known = features.filter((one) => isText(one, 100))
  const facts = { name, peer: addressesOf(peer), smtp, web, version, features: known }
  return {
    applicant: { node: id, exchange: joiner, sign: key, ...facts },
    port,
    wallMs,
    probeKey: probe,
  }
}

function unreadable(): RefusalError {
  return new RefusalError(
    'invalid',
    null,
    'The request to join cannot be read.',
    'Run the same version on both nodes, or neighbouring ones.',
  )
}

function crowded(): RefusalError {
  return new RefusalError(
    'unavailable',
    null,
    `${JOINS_MAX} nodes are joining here now.`,
    'Try again in a moment, with the same token.',
  )
}

function failed(error: unknown): RefusalError {
  const what = error instanceof GatewayError ? messageOf(error) : 'a fault, see its log'
  return new RefusalError(
    'unavailable',
    null,
    `The node that issued the token could not finish: ${what}.`,
    'Try again with the same token.',
  )
}

function isReached(found: Reach | undefined): boolean {
  return found?.tcp === null && found.udp === null
}

function unreached(candidates: readonly PeerAddress[], found: readonly Reach[]): RefusalError {
  const tries = candidates.map((address, at) => {
    const { tcp = null, udp = null } = found[at] ?? {}
    const ways = [tcp === null ? null : `TCP: ${tcp}`, udp === null ? null : `UDP: ${udp}`]
    return `${placeOf(address)} (${ways.filter((way) => way !== null).join('; ')})`
  })
  const port = candidates[0]?.port ?? 0
  return new RefusalError(
    'unavailable',
    'peer',
    `The cluster cannot reach this node at ${tries.join(', ')}.`,
    `Open port ${port}, TCP and UDP, or name another address with --advertise HOST:PORT; then join again with the same token.`,
  )
}

// ---- what both sides need ----

function placeOf({ host, port }: PeerAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

function isText(raw: unknown, most: number): raw is string {
  return typeof raw === 'string' && raw.length <= most
}

function fieldsOf(body: Uint8Array): Raw | null {
  try {
    const raw: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
    return typeof raw === 'object' && raw !== null && !Array.isArray(raw) ? (raw as Raw) : null
  } catch {
    return null
  }
}

function toBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

function encode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url')
}

function decode(raw: unknown): Uint8Array | null {
  return typeof raw === 'string' ? new Uint8Array(Buffer.from(raw, 'base64url')) : null
}
