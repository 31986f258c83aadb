/** Nodes for tests of the links between them: keys, a roster that can change, a table each. */

import type { NodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type {
  Member,
  Network,
  PeerAddress,
  Roster,
  Self,
  Standing,
} from '../src/cluster/contract.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { LinkTable, type LinkTableOptions } from '../src/cluster/link.ts'
import { ManualClock } from './clock.ts'
import { Pipes, settled } from './pipes.ts'

export const CLUSTER = '00112233aabbccdd'
export const PORT = 7_900

/** Who there is; all tables of one cast read the same list. */
export class Cast {
  readonly clock = new ManualClock()
  readonly pipes = new Pipes()
  readonly random: SeededRandom
  readonly lines: string[] = []
  readonly observer = new Observer(this.clock, (line) => this.lines.push(line), 'debug')
  readonly members: Member[] = []
  readonly selves: Self[] = []
  #listeners: (() => void)[] = []

  constructor(seed = 1) {
    this.random = new SeededRandom(seed)
  }

  /** Admits a node; its host is named as its place in the cast: a, b, c. */
  add(node: string): Self {
    const keys = newKeys(this.random)
    const host = String.fromCharCode(97 + this.members.length)
    const id = node.padEnd(16, '0') as NodeId
    const self = { node: id, keys, instance: this.#instance(), epoch: 1, version: '0.1.0' }
    this.selves.push(self)
    this.members.push({
      node: id,
      name: `mx-${host}`,
      standing: 'member',
      exchange: keys.exchange.public,
      sign: keys.sign.public,
      peer: [{ host, port: PORT }],
      smtp: '',
      web: '',
      version: '0.1.0',
      features: [],
      drain: 'accepting',
      admittedBy: null,
      admittedMs: 0,
    })
    return self
  }

  /** The next run of a node. */
  again(self: Self): Self {
    return { ...self, instance: this.#instance(), epoch: self.epoch + 1 }
  }

  change(node: NodeId, facts: Partial<Member>): void {
    const place = this.members.findIndex((member) => member.node === node)
    const before = this.members[place]
    if (before !== undefined) this.members[place] = { ...before, ...facts }
    for (const listener of this.#listeners) listener()
  }

  roster(self: Self, of: () => readonly Member[] = () => this.members): Roster {
    const isIn = ({ standing }: { standing: Standing }): boolean => standing === 'member'
    return {
      clusterId: CLUSTER,
      self,
      members: () => of().filter(isIn),
      peers: () => of().filter((member) => isIn(member) && member.node !== self.node),
      get: (node) => of().find((member) => member.node === node) ?? null,
      byExchange: (key) => of().find(({ exchange }) => exchange.toHex() === key.toHex()) ?? null,
      onChange: (listener) => {
        this.#listeners.push(listener)
      },
    }
  }

  /** Starts a node on a host; `host` is where it listens. */
  open(
    self: Self,
    host: string,
    {
      network = this.pipes.at(host),
      ...over
    }: Partial<LinkTableOptions> & { network?: Network } = {},
  ): Promise<LinkTable> {
    const listen: PeerAddress = { host, port: PORT }
    return LinkTable.open(
      {
        self,
        clusterId: CLUSTER,
        roster: this.roster(self),
        listen,
        version: self.version,
        parallelCrypto: false,
        onJoin: null,
        ...over,
      },
      { clock: this.clock, random: this.random, network, observer: this.observer },
    )
  }

  /** Lets `ms` pass, in steps in which promises run too. */
  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 100) {
      this.clock.advance(Math.min(100, left))
      await settled()
    }
  }

  #instance(): string {
    return this.random.bytes(6).toHex()
  }
}
