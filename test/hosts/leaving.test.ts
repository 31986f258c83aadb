/** A node that goes: drained under load, removed for good, or dead while its work is done elsewhere. */
import { afterAll, expect } from 'bun:test'
import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { accountLine, Load, settleAccount } from '../process/ledger.ts'
import { Sink } from '../process/sink.ts'
import { posternCommand } from '../real.ts'
import { clock, msUntil, onHosts, promises, SMTP_PORT, until, WEB_PORT } from './cluster.ts'
import { Net } from './net.ts'

/** A removed node is refused everywhere by then. */
const REFUSED_MS = 10_000

onHosts('a node that goes', () => {
  const net = new Net(10)
  const sink = new Sink({}, 0, clock, net.outside)
  afterAll(() => {
    sink.stop()
    net.dispose()
  })

  const promise = promises(net)

  promise(
    'by removal is refused everywhere, its tokens too, and what it knew does not come back',
    [1, 2, 3],
    async (cluster) => {
      await cluster.set(3, 'trace.keep', 81)
      await cluster.node(1).api('/api/v1/lists/block', {
        method: 'POST',
        body: JSON.stringify({ kind: 'sender', value: '@gone.example' }),
      })
      expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
      const token = await cluster.invite(3)
      const id = await cluster.idOf(3)
      // What a thief has: the disk as it was before.
      await cluster.node(3).stop()
      const stolen = join(cluster.place, 'stolen')
      cpSync(cluster.dataOf(3), stolen, { recursive: true })
      rmSync(join(stolen, 'control.sock'), { force: true })
      await cluster.node(3).begin()
      expect(await until(() => cluster.agree(), 20_000)).toBeTrue()

      await cluster.node(1).api(`/api/v1/nodes/${id}`, { method: 'DELETE' })
      const refusedMs = await msUntil(async () => {
        const views = await cluster.views([1, 2])
        return views.every(
          ({ nodes, links }) =>
            nodes.some((node) => node.id === id && node.state === 'evicted') &&
            !links.some((link) => link.to === id && link.tcp === true),
        )
      }, 60_000)
      console.info(
        `a removed node: refused everywhere after ${Math.round(refusedMs)} ms (bar ${REFUSED_MS})`,
      )
      expect(refusedMs).toBeFinite()
      const isTold = async () =>
        (await cluster.view(3)).events.some(({ what }) => what === 'refuses this node')
      expect(await until(isTold, 20_000)).toBeTrue()
      // Whoever it lets in now is as foreign to the others as it is.
      await cluster.join(4, token).catch(() => {})
      const isIn = async () =>
        (await cluster.views([1, 2])).some(({ nodes }) =>
          nodes.some(({ name, state }) => name === 'mx4' && state !== 'evicted'),
        )
      expect(await until(isIn, 8_000, 500)).toBeFalse()
      await cluster.nodes.get(4)?.kill()
      await cluster.node(3).kill()

      // Its old disk: what is deleted meanwhile stays deleted, what it sets is heard by nobody.
      const entry = encodeURIComponent('@gone.example')
      await cluster.node(2).api(`/api/v1/lists/block/sender/${entry}`, { method: 'DELETE' })
      await cluster.begin(3, { data: stolen })
      await cluster.set(3, 'trace.keep', 82).catch(() => {})
      await cluster.set(1, 'quarantine.keep', 83)
      expect(await cluster.msUntilSet([2], 'quarantine.keep', 83)).toBeFinite()
      const isHeard = async () => (await cluster.get(1, 'trace.keep')) === 82
      expect(await until(isHeard, 8_000, 500)).toBeFalse()
      for (const host of [1, 2]) {
        expect(await cluster.get(host, 'trace.keep')).toBe(81)
        const isEmpty = async () => {
          const { rows } = await cluster.node(host).api<{ rows: unknown[] }>('/api/v1/lists/block')
          return rows.length === 0
        }
        expect(await until(isEmpty, 20_000)).toBeTrue()
        expect((await cluster.view(host)).nodes.find((node) => node.id === id)?.state).toBe(
          'evicted',
        )
      }
      expect(await cluster.get(3, 'quarantine.keep')).not.toBe(83)
    },
  )

  promise(
    'by drain under load fails no session but with 421, and loses nothing',
    [5, 6],
    async (cluster) => {
      await cluster.node(5).addDomain('drain.example', sink.nextHop)
      await cluster.set(5, 'limits.exempt', [`${net.outside}/32`])
      expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
      const load = new Load({
        host: net.address(5),
        port: SMTP_PORT,
        domain: 'drain.example',
        connections: 4,
        seed: 5,
        sizes: [4_096, 50_000],
        replyMs: 20_000,
      })
      const beganMono = clock.monoMs()
      expect(await load.ledger.untilAcked(200, 60_000)).toBeTrue()
      const rate = 200_000 / (clock.monoMs() - beganMono)
      await cluster.node(6).api('/api/v1/nodes/mx5/drain', { method: 'POST' })
      const drainedMs = await msUntil(
        async () => (await cluster.stateOf(5, 6)) === 'drained',
        60_000,
      )
      await load.stop()
      expect(drainedMs).toBeFinite()
      expect(await cluster.node(5).queueEmpty(30_000)).toBeTrue()
      const account = () => settleAccount(load.ledger, sink.arrivals)
      expect(await sink.until(() => account().lost.length === 0, 20_000)).toBeTrue()
      const replies = [...load.ledger.entries.values()].filter(({ fate }) => fate !== 'acked')
      const others = replies.filter(({ reply }) => !reply.startsWith('421'))
      console.info(
        `drain at ${Math.round(rate)} mails a second: drained after ${Math.round(drainedMs)} ms; ${accountLine(account())}; not 421: ${others.map(({ reply }) => reply).join(' | ') || 'none'}`,
      )
      expect(account()).toMatchObject({ lost: [], phantom: [], corrupt: [], duplicates: [] })
      expect(load.ledger.indeterminate).toBe(0)
      expect(others.map(({ reply }) => reply)).toEqual([])

      await cluster.node(6).api('/api/v1/nodes/mx5/undrain', { method: 'POST' })
      let seed = 55
      const takes = async () => {
        seed += 1
        return (await cluster.send(5, 'drain.example', seed, 1)).acked === 1
      }
      expect(await until(takes, 20_000)).toBeTrue()
    },
  )

  promise(
    'for good leaves one on which every page and every action works',
    [7, 8],
    async (cluster) => {
      const node = cluster.node(7)
      await node.addDomain('page.example', sink.nextHop)
      expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
      await cluster.node(8).kill()
      const isDead = async () => (await cluster.stateOf(8, 7)) === 'dead'
      expect(await until(isDead, 60_000)).toBeTrue()

      const made = Bun.spawn(
        [...posternCommand(), '--data', node.data, 'operator', 'add', 'ann', '--password-stdin'],
        { stdin: new Blob(['correct horse battery\n']), stdout: 'ignore', stderr: 'pipe' },
      )
      expect({ code: await made.exited, err: await new Response(made.stderr).text() }).toEqual({
        code: 0,
        err: '',
      })
      const browser = new Curl(`https://${net.address(7)}:${WEB_PORT}`, join(cluster.place, 'jar'))
      const login = await browser.send('POST', '/api/v1/login', {
        name: 'ann',
        password: 'correct horse battery',
      })
      expect(login.code).toBe(200)
      const csrf = (JSON.parse(login.body) as { csrf: string }).csrf

      // Every page that a page leads to, and what the API lists.
      const seen = new Map<string, number>()
      const waiting = ['/']
      for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
        if (seen.has(path)) continue
        const { code, body } = await browser.send('GET', path)
        seen.set(path, code)
        for (const [, link = ''] of body.matchAll(/\shref="(\/[^"#]*)/g)) {
          const to = link.replaceAll('&amp;', '&')
          if (!/^\/(assets|logout|api)/.test(to) && !seen.has(to)) waiting.push(to)
        }
        if (seen.size > 200) break
      }
      const api = await node.api<{ paths: Record<string, Record<string, unknown>> }>(
        '/api/v1/openapi.json',
      )
      for (const [path, methods] of Object.entries(api.paths)) {
        if (!('get' in methods) || path.includes('{')) continue
        seen.set(path, (await browser.send('GET', path)).code)
      }
      const bad = [...seen].filter(([, code]) => code !== 200)
      console.info(`beside a dead node ${seen.size} pages and lists answer`)
      expect(bad).toEqual([])
      expect(seen.size).toBeGreaterThan(25)

      for (const [method, path, body] of [
        ['PUT', '/settings/trace.keep', { value: 91 }],
        ['PUT', '/domains/other.example', { nextHops: [sink.nextHop] }],
        ['DELETE', '/domains/other.example', null],
        ['POST', '/lists/allow', { kind: 'ip', value: '192.0.2.1' }],
        ['DELETE', '/lists/allow/ip/192.0.2.1', null],
        ['POST', '/operators', { name: 'ben', password: 'correct horse battery', role: 'viewer' }],
        ['DELETE', '/operators/ben', null],
        ['POST', '/tokens', { name: 'script' }],
        ['POST', '/invitations', {}],
        ['POST', '/queue/retry', {}],
        ['POST', '/nodes/self/drain', {}],
        ['POST', '/nodes/self/undrain', {}],
        ['DELETE', '/nodes/mx8', null],
      ] as const) {
        const { code, body: said } = await browser.send(method, `/api/v1${path}`, body, csrf)
        expect({ method, path, code, said }).toEqual({ method, path, code: 200, said })
      }
      let seed = 77
      const takes = async () => {
        seed += 1
        return (await cluster.send(7, 'page.example', seed, 2)).acked === 2
      }
      expect(await until(takes, 20_000)).toBeTrue()
    },
  )
})

type Page = { readonly code: number; readonly body: string }

/** A browser's requests, over https on the wire between the hosts. */
class Curl {
  readonly #origin: string
  readonly #jar: string

  constructor(origin: string, jar: string) {
    this.#origin = origin
    this.#jar = jar
  }

  async send(method: string, path: string, body: unknown = null, csrf = ''): Promise<Page> {
    const data =
      body === null ? [] : ['-H', 'content-type: application/json', '-d', JSON.stringify(body)]
    const words = ['-sk', '-m', '20', '-b', this.#jar, '-c', this.#jar, '-X', method, ...data]
    const out =
      await Bun.$`curl ${words} -H ${`x-csrf-token: ${csrf}`} -H ${`origin: ${this.#origin}`} -w ${'\n%{http_code}'} ${this.#origin}${path}`
        .quiet()
        .nothrow()
        .text()
    const at = out.lastIndexOf('\n')
    return { code: Number(out.slice(at + 1)), body: out.slice(0, at) }
  }
}
