/** The three nodes of the demo, each of which can be stopped and started while the others go on. */
import { join } from 'node:path'
import type { Admin, NodeState } from '../../admin/contract.ts'
import { messageOf } from '../../base/errors.ts'
import type { Address, NodeOptions, RunningNode, World } from '../world.ts'

/** How a node stands, as one that runs sees it. */
export type DemoNode = {
  readonly name: string
  readonly state: NodeState | 'starting' | 'stopping' | 'stopped'
  readonly smtp: Address
  /** Empty while it never ran. */
  readonly web: string
}

type Place = {
  readonly name: string
  options: NodeOptions
  node: RunningNode | null
  /** A start or a stop that runs; buttons are pressed twice. */
  busy: 'starting' | 'stopping' | null
  web: string
}

const ANY: Address = { host: '127.0.0.1', port: 0 }
const AUTHOR = { name: 'cli', role: 'admin' } as const

export class DemoNodes {
  readonly #world: World
  readonly #places: Place[] = []

  constructor(world: World) {
    this.#world = world
  }

  /** Starts the first node; the others join it. @throws RefusalError for a port that is taken */
  async start(
    first: Pick<NodeOptions, 'dataDir' | 'smtp' | 'web' | 'nameServers' | 'command' | 'logLevel'>,
  ): Promise<RunningNode> {
    const options = {
      ...first,
      peer: ANY,
      advertise: [ANY],
      join: null,
      identity: 'keep',
      rebuildState: false,
      timeScale: 1,
    } as const
    const begun = await this.#begin({ ...options, name: 'mx1' })
    return begun
  }

  /** Two more nodes, by a token each would get by hand. */
  async join(): Promise<void> {
    const [first] = this.#places
    const node = first?.node
    if (first === undefined || node === undefined || node === null) return
    const { token } = node.admin.invite(AUTHOR, { uses: 2 })
    await Promise.all(
      ['mx2', 'mx3'].map((name) =>
        this.#begin({
          ...first.options,
          dataDir: join(first.options.dataDir, name),
          smtp: ANY,
          web: { ...first.options.web, port: 0 },
          name,
          join: token,
        }),
      ),
    )
    this.#places.sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** Those that run. */
  running(): readonly RunningNode[] {
    return this.#places.flatMap(({ node, busy }) => (node === null || busy !== null ? [] : [node]))
  }

  list(): readonly DemoNode[] {
    const seen = this.#seen()
    return this.#places.map(({ name, node, busy, options, web }) => ({
      name,
      state: busy ?? (node === null ? 'stopped' : (seen.get(name) ?? 'alive')),
      smtp: options.smtp,
      web,
    }))
  }

  /** What the nodes noticed of each other, newest first. */
  events(): ReturnType<Admin['cluster']>['events'] {
    return this.running()[0]?.admin.cluster().events.slice(0, 12) ?? []
  }

  /** Stops a node that runs, starts one that does not. False: there is no such node. */
  async toggle(name: string): Promise<boolean> {
    const place = this.#places.find((one) => one.name === name)
    if (place === undefined) return false
    if (place.busy !== null) return true
    const { node } = place
    place.busy = node === null ? 'starting' : 'stopping'
    try {
      if (node === null) place.node = await this.#world.startNode(place.options)
      else {
        place.node = null
        await node.stop()
      }
    } catch (error) {
      this.#world.err(`${name} could not be started: ${messageOf(error)}\n`)
    } finally {
      place.busy = null
    }
    return true
  }

  async stop(): Promise<void> {
    const nodes = this.#places.flatMap(({ node }) => node ?? [])
    for (const place of this.#places) place.node = null
    await Promise.all(nodes.map((node) => node.stop()))
  }

  async #begin(options: NodeOptions): Promise<RunningNode> {
    const node = await this.#world.startNode(options)
    const { url } = node.web
    // When it is started again it is found where it was.
    const again = {
      ...options,
      smtp: node.smtp,
      web: { ...options.web, port: Number(new URL(url).port) },
      join: null,
    }
    const name = options.name ?? ''
    this.#places.push({ name, options: again, node, busy: null, web: url })
    return node
  }

  /** By name, as the first node that runs sees them. */
  #seen(): ReadonlyMap<string, NodeState> {
    const [node] = this.running()
    const nodes = node?.admin.cluster().nodes ?? []
    return new Map(nodes.map(({ name, state }) => [name, state]))
  }
}
