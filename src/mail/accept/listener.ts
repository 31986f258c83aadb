/** Port 25: sockets, TLS, throttle and clocks around sessions. */

import type { Socket, TCPSocketListener } from 'bun'
import { type Clock, pause, type Timer } from '../../base/clock.ts'
import { messageOf, RefusalError } from '../../base/errors.ts'
import type { MessageIds } from '../../base/ids.ts'
import { TrafficMemory } from '../../base/memory.ts'
import type { Names } from '../../base/names.ts'
import type { Observer } from '../../base/observe.ts'
import type { Tally } from '../../base/tally.ts'
import type { LiveConfig } from '../../config/live.ts'
import { reply } from '../../message/reply.ts'
import type { Greylist } from '../../store/greylist.ts'
import type { Bans } from './bans.ts'
import type { SessionDeps } from './contract.ts'
import type { Receiver } from './receive.ts'
import { BANNED, Session } from './session.ts'
import { networkList, plainIp, Throttle } from './throttle.ts'
import { NOTHING_ASKED, Visitor } from './visitor.ts'

export type ListenerOptions = {
  readonly host: string
  readonly port: number
  readonly hostname: string
  /** PEM; null: STARTTLS is not offered. */
  readonly tls: { readonly key: string; readonly cert: string } | null
}

export type ListenerDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly ids: MessageIds
  readonly live: LiveConfig
  readonly receiver: Receiver
  /** As the session has it. */
  readonly witness?: (question: string) => string | null
  readonly tally: Tally
  /** Null: nobody is greylisted, whatever the setting. */
  readonly greylist: Pick<Greylist, 'ask'> | null
  /** Asked about clients; without it nothing is known of them. */
  readonly names?: Names
  /** Who asked for too many recipients that nobody has; without it nobody is refused for that. */
  readonly bans?: Bans
  /** As the session has it. */
  readonly exists?: SessionDeps['exists']
  /** Another node of the cluster: never refused. */
  readonly isPeer?: (ip: string) => boolean
  /** The domain that somebody registered, of the name of a host. */
  readonly domainOf?: (host: string) => string
}

type Peer = {
  ip: string
  session: Session | null
  /** Null: nobody asks about this client. */
  visitor: Visitor | null
  /** The socket that speaks now: after STARTTLS the encrypted one. */
  socket: Socket<Peer>
  /** Ciphertext is also handed to the handlers of the bare socket; they ignore it. */
  isTls: boolean
  /** What the kernel did not take yet. */
  unsent: Buffer
  endsAfter: boolean
  counted: boolean
  handshake: Timer | null
}

const DRAINED = reply(421, '4.3.2', 'This node takes no mail now, try another one')
/** RFC 8996 leaves nothing older. */
const TLS_1_2 = 0x0303
/** A client that does not finish its handshake holds a descriptor (faults.md B07). */
const HANDSHAKE_MS_MAX = 30_000
/** How often silent sessions are looked for. */
const SWEEP_MS = 1_000
/** A client that reads nothing of our replies is cut off here. */
const UNSENT_BYTES_MAX = 256 * 1024
/** TLS handshakes at a time; beyond it STARTTLS gets 454 (faults.md B08). */
const HANDSHAKES_MAX = 200
/** So many times the usual wait before its greeting, for whom a list has. */
const SUSPECT_TIMES = 2

export class SmtpListener {
  readonly #options: ListenerOptions
  readonly #deps: ListenerDeps
  readonly #throttle: Throttle
  readonly #peers = new Set<Peer>()
  #listener: TCPSocketListener<Peer> | null = null
  #sweep: Timer | null = null
  #handshakes = 0
  readonly #memory: TrafficMemory
  #isExempt: (ip: string) => boolean = () => false
  #mayRelay: (ip: string) => boolean = () => false
  #isClosing = false
  #isDraining = false

  constructor(options: ListenerOptions, deps: ListenerDeps) {
    this.#options = options
    this.#deps = deps
    this.#throttle = new Throttle(deps.clock, deps.tally)
    this.#memory = new TrafficMemory(deps.clock)
    const apply = (): void => {
      const { settings } = deps.live.current
      this.#isExempt = networkList(settings['limits.exempt'])
      this.#mayRelay = networkList(settings['relay.networks'])
    }
    apply()
    deps.live.onChange(apply)
  }

  /** Opens the port. @throws RefusalError that names the port and the option */
  start(): void {
    const { host, port } = this.#options
    try {
      this.#listener = Bun.listen<Peer>({
        hostname: host,
        port,
        socket: {
          open: (socket) => this.#opened(socket),
          // A socket that is reset at once may fail without ever having been open: no peer then.
          data: (socket, chunk) => {
            const peer = peerOf(socket)
            this.#memory.took(chunk.length)
            if (peer !== null && !peer.isTls) peer.session?.receive(chunk)
          },
          drain: (socket) => {
            const peer = peerOf(socket)
            if (peer !== null && !peer.isTls) this.#drain(peer)
          },
          close: (socket) => {
            const peer = peerOf(socket)
            if (peer !== null) this.#closed(peer)
          },
          error: (socket, error) => {
            const peer = peerOf(socket)
            if (peer === null) socket.terminate()
            else this.#failed(peer, error)
          },
        },
      })
    } catch (error) {
      throw new RefusalError(
        'conflict',
        'smtp',
        `Cannot listen on ${host}:${port}: ${messageOf(error)}.`,
        `Stop what uses port ${port}, or choose another one with --smtp HOST:PORT.`,
      )
    }
    const sweep = (): void => {
      for (const peer of this.#peers) peer.session?.tick()
      if (this.#isDraining) for (const peer of this.#peers) peer.session?.finishIdle()
      this.#sweep = this.#deps.clock.after(SWEEP_MS, sweep)
    }
    this.#sweep = this.#deps.clock.after(SWEEP_MS, sweep)
  }

  /** The port that is open; 0 before start. */
  get port(): number {
    return this.#listener?.port ?? 0
  }

  get isListening(): boolean {
    return this.#listener !== null
  }

  get sessions(): number {
    return this.#peers.size
  }

  /**
   * While on: new connections and new messages get 421, messages that have begun end as ever. The
   * port stays open, so that a client hears it and goes to the next node at once.
   */
  drain(on: boolean): void {
    this.#isDraining = on
  }

  /** Takes no new connection, lets messages whose dot came be answered, ends the rest with 421. */
  async stop(): Promise<void> {
    this.#isClosing = true
    this.#listener?.stop(false)
    this.#listener = null
    this.#sweep?.cancel()
    for (const peer of this.#peers) peer.session?.finish()
    const deadlineMono = this.#deps.clock.monoMs() + 3_000
    while (this.#peers.size > 0 && this.#deps.clock.monoMs() < deadlineMono) {
      for (const peer of this.#peers) peer.session?.finish()
      await pause(this.#deps.clock, 20)
    }
    for (const peer of this.#peers) peer.socket.terminate()
  }

  #opened(socket: Socket<Peer>): void {
    const ip = plainIp(socket.remoteAddress)
    const peer: Peer = {
      ip,
      session: null,
      visitor: null,
      socket,
      isTls: false,
      unsent: Buffer.alloc(0),
      endsAfter: false,
      counted: false,
      handshake: null,
    }
    socket.data = peer
    this.#peers.add(peer)
    this.#deps.observer.emit('smtp.connected', { client: ip })
    const { settings } = this.#deps.live.current
    const session = this.#session(peer)
    peer.session = session
    if (this.#isClosing)
      return session.refuse(reply(421, '4.3.2', 'Shutting down, try again later'), 'shutdown')
    if (this.#isDraining) return session.refuse(DRAINED, 'drained')
    if (this.#peers.size > settings['limits.sessions']) {
      return session.refuse(
        reply(421, '4.3.2', 'Too many connections, try again later'),
        'sessions',
      )
    }
    const isExempt = this.#isExempt(ip)
    const isOurs = this.#isOurs(ip)
    if (this.#isBanned(ip)) return session.refuse(BANNED, 'banned')
    if (!isExempt) {
      if (!this.#throttle.opened(ip, settings)) {
        return session.refuse(
          reply(421, '4.7.0', 'Too many connections from your network'),
          'connections',
        )
      }
      peer.counted = true
    }
    if (!isOurs) peer.visitor = this.#visitor(ip)
    const isKnown = isExempt || this.#throttle.hasBehaved(ip)
    const delayMs = isKnown ? 0 : settings['smtp.greetingDelay']
    if (delayMs === 0) return session.open()
    this.#deps.clock.after(delayMs, () => {
      // Whom a list has waits longer: it costs nobody but him.
      if (peer.visitor?.isSuspect !== true) session.open()
      else this.#deps.clock.after(SUSPECT_TIMES * delayMs, () => session.open())
    })
  }

  /** Never asked about, counted or refused for what others say of it. */
  #isOurs(ip: string): boolean {
    return this.#isExempt(ip) || this.#mayRelay(ip) || this.#deps.isPeer?.(ip) === true
  }

  #mayBan(ip: string): boolean {
    const { allowedClients } = this.#deps.live.current.lists
    return !this.#isOurs(ip) && allowedClients.find(ip) === null
  }

  #isBanned(ip: string): boolean {
    return this.#deps.bans?.isBanned(ip) === true && this.#mayBan(ip)
  }

  /** An allowed client is not looked up in lists: they could not change what becomes of its mail. */
  #visitor(ip: string): Visitor | null {
    const { clock, names, live } = this.#deps
    if (names === undefined) return null
    const { settings, lists, domains } = live.current
    const hostname = this.#options.hostname.toLowerCase()
    return new Visitor(ip, lists.allowedClients.find(ip) === null, {
      clock,
      names,
      settings,
      isOurs: (name) => name === hostname || domains.has(name),
    })
  }

  #session(peer: Peer): Session {
    const { clock, observer, ids, receiver, live } = this.#deps
    return new Session(
      peer.ip,
      {
        write: (text) => this.#write(peer, text),
        end: (text) => {
          this.#write(peer, text)
          peer.endsAfter = true
          if (peer.unsent.length === 0) peer.socket.end()
        },
        pause: () => peer.socket.pause(),
        resume: () => peer.socket.resume(),
        startTls: (text) => this.#startTls(peer, text),
      },
      {
        hostname: this.#options.hostname,
        clock,
        observer,
        ids,
        receiver,
        snapshot: () => live.current,
        mayRelay: (ip) => this.#mayRelay(ip),
        isExempt: (ip) => this.#isExempt(ip),
        begun: (ip) => this.#isExempt(ip) || this.#throttle.begun(ip, live.current.settings),
        addressed: (ip) =>
          this.#isExempt(ip) || this.#throttle.addressed(ip, live.current.settings),
        greylisted: (ip, sender, recipient, name) => this.#greylisted(ip, sender, recipient, name),
        known: () => peer.visitor?.known() ?? NOTHING_ASKED,
        greeted: (name) => peer.visitor?.greeted(name),
        exists: (recipient, snapshot) => this.#deps.exists?.(recipient, snapshot) ?? true,
        failed: (ip) =>
          this.#mayBan(ip) && this.#deps.bans?.failed(ip, live.current.settings) === true,
        isBanned: (ip) => this.#isBanned(ip),
        behaved: (ip) => {
          if (!this.#isExempt(ip)) this.#throttle.behaved(ip)
        },
        tlsOffered: this.#options.tls !== null,
        closed: () => (this.#isDraining ? DRAINED : null),
        witness: (question) => this.#deps.witness?.(question) ?? null,
      },
    )
  }

  /** Not who may relay, who is exempt from limits, or had mail accepted here. In whole seconds. */
  #greylisted(ip: string, sender: string, recipient: string, name: string | null): number {
    const { live, greylist, domainOf } = this.#deps
    const { settings } = live.current
    if (greylist === null || settings['greylist.mode'] !== 'on') return 0
    if (this.#isExempt(ip) || this.#mayRelay(ip) || this.#throttle.hasBehaved(ip)) return 0
    // A sender with many addresses comes again from another one, of the same name.
    const also = name === null || domainOf === undefined ? [] : [`name:${domainOf(name)}`]
    return Math.ceil(greylist.ask(ip, sender, recipient, settings, also) / 1_000)
  }

  #write(peer: Peer, text: string): void {
    if (peer.unsent.length > 0) {
      peer.unsent = Buffer.concat([peer.unsent, Buffer.from(text)])
      if (peer.unsent.length > UNSENT_BYTES_MAX) peer.socket.terminate()
      return
    }
    const written = peer.socket.write(text)
    const bytes = Buffer.byteLength(text)
    // Less than nothing means that the socket is closed already.
    if (written >= 0 && written < bytes) peer.unsent = Buffer.from(text).subarray(written)
  }

  #drain(peer: Peer): void {
    if (peer.unsent.length === 0) return
    const written = peer.socket.write(peer.unsent)
    if (written > 0) peer.unsent = peer.unsent.subarray(written)
    if (peer.unsent.length === 0 && peer.endsAfter) peer.socket.end()
  }

  #startTls(peer: Peer, text: string): void {
    const { tls } = this.#options
    if (tls === null || this.#handshakes >= HANDSHAKES_MAX) {
      return this.#write(peer, '454 4.7.0 TLS not available now\r\n')
    }
    this.#write(peer, text)
    peer.isTls = true
    this.#handshakes += 1
    let waiting = true
    const settled = (): void => {
      if (!waiting) return
      waiting = false
      this.#handshakes -= 1
      peer.handshake?.cancel()
    }
    const bare = peer.socket
    const idleMs = this.#deps.live.current.settings['limits.idle'] * 1_000
    peer.handshake = this.#deps.clock.after(Math.min(HANDSHAKE_MS_MAX, idleMs), () => {
      // The bare socket can no longer be ended, only the one that took its place.
      if (waiting) peer.socket.terminate()
    })
    const [, secure] = bare.upgradeTLS<Peer>({
      data: peer,
      // Server side; the option is missing in the types of this version.
      ...{ isServer: true },
      tls: {
        key: tls.key,
        cert: tls.cert,
        requestCert: false,
        rejectUnauthorized: false,
        ...({ minVersion: TLS_1_2 } as object),
      },
      socket: {
        open: () => {},
        handshake: (socket, ok) => {
          settled()
          const cipher = (
            socket as unknown as { getCipher?: () => { name: string | null } }
          ).getCipher?.()
          const version = (socket as unknown as { getTLSVersion?: () => string }).getTLSVersion?.()
          // With `ok` alone a client that speaks TLS 1.1 would look like one that gave up.
          const isSecure = ok && typeof cipher?.name === 'string'
          this.#deps.observer.emit('smtp.secured', {
            client: peer.ip,
            result: isSecure ? 'ok' : 'failed',
          })
          if (!isSecure) return socket.terminate()
          peer.session?.secured(`${version ?? 'TLS'} ${cipher.name}`)
        },
        data: (_, chunk) => peer.session?.receive(chunk),
        drain: () => this.#drain(peer),
        close: () => {
          settled()
          this.#closed(peer)
        },
        error: (_, error) => {
          settled()
          this.#failed(peer, error)
        },
      },
    })
    peer.socket = secure
  }

  #closed(peer: Peer): void {
    if (!this.#peers.delete(peer)) return
    peer.handshake?.cancel()
    if (peer.counted) this.#throttle.closed(peer.ip)
    peer.session?.closed()
  }

  #failed(peer: Peer, error: Error): void {
    this.#deps.observer.emit('smtp.failed', { client: peer.ip, cause: messageOf(error) })
    peer.socket.terminate()
  }
}

function peerOf(socket: Socket<Peer>): Peer | null {
  const peer: Peer | undefined = socket.data
  return peer ?? null
}
