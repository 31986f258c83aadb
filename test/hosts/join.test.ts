/** One line on a fresh machine makes it a node; whoever may not join hears why. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PATIENCE_MS } from '../process/counts.ts'
import { Load } from '../process/ledger.ts'
import type { Answer } from '../process/postern.ts'
import { Sink } from '../process/sink.ts'
import {
  clock,
  HostCluster,
  NAMELESS_INSPECTORS,
  onHosts,
  PEER_PORT,
  SMTP_PORT,
  until,
  WEB_PORT,
} from './cluster.ts'
import { Net } from './net.ts'

const BAR_MS = 10_000

/** As `postern invite --json` prints it. */
type Invited = { readonly token: string; readonly command: string }

onHosts('a new node', () => {
  const net = new Net(8)
  const place = mkdtempSync(join(tmpdir(), 'postern-lines-'))
  const sink = new Sink({}, 0, clock, net.outside)
  let cluster: HostCluster
  beforeAll(async () => {
    cluster = new HostCluster(net)
    // Where the first line gets the program from.
    await cluster.begin(6)
  }, PATIENCE_MS)
  afterAll(async () => {
    await cluster?.dispose()
    sink.stop()
    net.dispose()
    rmSync(place, { recursive: true, force: true })
  })

  /** Runs a line as a person on that host, who has nothing yet. */
  async function line(host: number, command: string): Promise<Answer> {
    const home = homeOf(host)
    mkdirSync(home, { recursive: true, mode: 0o700 })
    const child = Bun.spawn(
      ['ip', 'netns', 'exec', net.namespace(host), 'bash', '-o', 'pipefail', '-c', command],
      {
        cwd: home,
        stdin: 'ignore',
        stdout: 'pipe',
        stderr: 'pipe',
        env: {
          PATH: process.env['PATH'] ?? '',
          // Not where a machine with systemd would make a unit of it.
          POSTERN_BIN: join(home, 'postern'),
          POSTERN_DATA: join(home, 'data'),
          POSTERN_NAME: `mx${host}`,
        },
      },
    )
    const [out, err] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ])
    return { code: await child.exited, out, err }
  }

  const homeOf = (host: number) => join(place, `mx${host}`)

  /** A command of the program that a line has installed. */
  async function installed<Value>(host: number, ...words: readonly string[]): Promise<Value> {
    const home = homeOf(host)
    const program = [join(home, 'postern'), '--data', join(home, 'data')]
    return (await Bun.$`${program} ${words} --json`.quiet()).json() as Value
  }

  /** Runs `serve` with a token, as a host that has the program; gives its last words. */
  async function refused(host: number, token: string): Promise<string> {
    const why = await cluster.join(host, token).then(
      () => 'it was let in',
      (error: Error) => error.message,
    )
    await cluster.nodes.get(host)?.stop()
    return why
  }

  test(
    'takes two lines: one for the first, one for the second, which takes mail at once',
    async () => {
      const url = `https://${net.address(6)}:${WEB_PORT}`
      const { webPin } = await cluster.node(6).api<{ webPin: string }>('/api/v1/status')
      const first = await line(1, `curl -fsSk --pinnedpubkey '${webPin}' ${url}/join | sh`)
      expect(first).toMatchObject({ code: 0, err: '' })
      expect(first.out).toContain('This machine is a node, and takes mail.')
      expect(first.out).toContain('/setup?code=')
      await installed(1, 'domain', 'add', 'example.com', '--next-hop', sink.nextHop)
      await installed(1, 'config', 'set', 'inspect.inspectors', NAMELESS_INSPECTORS)
      await installed(1, 'config', 'set', 'connection.names', 'off')

      const { command } = await installed<Invited>(1, 'invite')
      expect(command).toStartWith('curl -fsSk --pinnedpubkey ')
      const beganMono = clock.monoMs()
      const load = new Load({
        host: net.address(2),
        port: SMTP_PORT,
        domain: 'example.com',
        connections: 1,
        seed: 1,
        sizes: [4_096],
      })
      const answer = line(2, command)
      expect(await load.ledger.untilAcked(1, 60_000)).toBeTrue()
      const tookMs = clock.monoMs() - beganMono
      await load.stop()
      console.info(
        `from Enter to the first accepted mail ${Math.round(tookMs)} ms (bar ${BAR_MS}); ${load.ledger.refused} refused before`,
      )
      expect(load.ledger.refused).toBe(0)
      expect(await answer).toMatchObject({ code: 0, err: '' })
      expect((await answer).out).toContain('This machine is a node of the cluster')
      const arrived = () => sink.arrivals.length >= load.ledger.acked
      expect(await sink.until(arrived, 20_000)).toBeTrue()
      expect((await installed<{ nodes: unknown[] }>(1, 'status')).nodes).toHaveLength(2)

      const again = await line(3, command)
      expect(again.code).toBe(1)
      expect(again.err).toMatch(/token .*used.*Make a new one/is)
      const twice = await line(2, command)
      expect(twice).toMatchObject({ code: 0 })
      expect(twice.out).toContain('in a cluster already')
    },
    PATIENCE_MS,
  )

  test('is refused with an expired or revoked token, and told so', async () => {
    const environment = cluster.ownClock(7)
    await cluster.begin(7, { environment })
    const expired = await cluster.invite(7)
    cluster.setClock(7, '+20m')
    expect(await refused(8, expired)).toMatch(/token has expired.*Make a new one/s)
    const revoked = await cluster.invite(7)
    const open = await cluster
      .node(7)
      .api<{ rows: readonly { id: string; state: string }[] }>('/api/v1/invitations')
    const id = open.rows.find(({ state }) => state === 'open')?.id
    expect((await cluster.node(7).command('invite', '--revoke', id ?? '')).code).toBe(0)
    expect(await refused(8, revoked)).toMatch(/token .*revoked.*Make a new one/s)
    expect((await cluster.view(7)).nodes).toHaveLength(1)
    await cluster.node(7).stop()
  }, 60_000)

  test('in a cluster refuses the token of another one, and stays where it is', async () => {
    await cluster.begin(3)
    await cluster.join(4, await cluster.invite(3))
    const { clusterId } = await cluster.view(4)
    const foreign = await cluster.invite(6)
    const { code, err } = await cluster.node(4).command('join', foreign)
    expect(code).toBe(1)
    expect(err).toMatch(/\S+ \S+/)
    console.info(`foreign token: ${err.trim()}`)
    expect(await until(() => cluster.agree([3, 4]), 10_000)).toBeTrue()
    expect((await cluster.view(4)).clusterId).toBe(clusterId)
    expect((await cluster.view(6)).nodes).toHaveLength(1)
  }, 60_000)

  test('does not run what a machine in the middle hands it', async () => {
    const middle = await Middle.open(net.outside, { host: net.address(6), port: WEB_PORT })
    const { command } = JSON.parse(
      (await cluster.node(3).command('invite', '--json')).out,
    ) as Invited
    const caught = command.replace(`${net.address(3)}:${WEB_PORT}`, `${net.outside}:${middle.port}`)
    expect(caught).not.toBe(command)
    const { code, out, err } = await line(5, caught)
    middle.stop()
    expect(middle.connections).toBeGreaterThan(0)
    // 90: the key of the server is not the pinned one.
    expect({ code, out }).toEqual({ code: 90, out: '' })
    expect(err).toContain('pinned')
    expect(existsSync(join(homeOf(5), 'postern'))).toBeFalse()
  })

  test('does not join by way of a node with another key, and does by way of the right one', async () => {
    const middle = await Middle.open(net.outside, { host: net.address(6), port: PEER_PORT })
    await cluster.node(3).stop()
    await cluster.begin(3, { options: ['--advertise', `${net.outside}:${middle.port}`] })
    const token = await cluster.invite(3)
    const why = await refused(5, token)
    expect(middle.connections).toBeGreaterThan(0)
    console.info(`man in the middle: ${/^postern: .*$/m.exec(why)?.[0]}`)
    expect(why).toMatch(/^postern: \S+/m)
    expect((await cluster.view(6)).nodes).toHaveLength(1)

    middle.target = { host: net.address(3), port: PEER_PORT }
    await cluster.join(5, token)
    middle.stop()
    expect((await cluster.view(3)).nodes).toHaveLength(3)
  }, 60_000)
})

type Target = { readonly host: string; readonly port: number }

/** A machine in the middle: passes on what it hears to a target of its choice. */
class Middle {
  target: Target
  connections = 0
  readonly #server: Server

  private constructor(target: Target) {
    this.target = target
    this.#server = createServer((near) => {
      this.connections += 1
      const far = connect(this.target)
      near.pipe(far).pipe(near)
      near.on('error', () => far.destroy())
      far.on('error', () => near.destroy())
    })
  }

  static async open(host: string, target: Target): Promise<Middle> {
    const middle = new Middle(target)
    await new Promise<void>((resolve) => middle.#server.listen(0, host, resolve))
    return middle
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  stop(): void {
    this.#server.close()
  }
}
