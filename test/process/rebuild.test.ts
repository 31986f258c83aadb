/** A node whose database is lost, with real processes: what it says, and how it is made whole (K20). */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { freePort } from '../ports.ts'
import { posternCommand } from '../real.ts'
import { Postern } from './postern.ts'
import { Wire } from './wire.ts'

const clock = new SystemClock()

/** A start that is expected to end by itself: what it says to a person. */
async function refusalOf(node: Postern): Promise<string> {
  const words = ['--smtp', '127.0.0.1:0', '--web', 'http://127.0.0.1:0', '--peer', '127.0.0.1:0']
  const child = Bun.spawn(posternCommand('serve', '--data', node.data, ...words), {
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
    timeout: 20_000,
    killSignal: 'SIGKILL',
  })
  const err = await new Response(child.stderr).text()
  expect(await child.exited).toBe(1)
  return err
}

async function until(what: () => Promise<boolean>): Promise<void> {
  const deadline = clock.monoMs() + 30_000
  while (!(await what())) {
    if (clock.monoMs() > deadline) throw new Error('it did not come to that')
    await pause(clock, 50)
  }
}

/** The answer to RCPT for an address of a domain. */
async function answerTo(node: Postern, address: string): Promise<number> {
  const wire = await Wire.connect({ port: node.smtpPort })
  await wire.reply()
  let code = 0
  for (const line of ['EHLO a.example', 'MAIL FROM:<a@a.example>', `RCPT TO:<${address}>`]) {
    wire.send(`${line}\r\n`)
    code = (await wire.reply()).code
  }
  wire.drop()
  return code
}

const path = (node: Postern, name = 'state.db') => join(node.data, name)

/** Overwrites pages in the middle of the database of a node that does not run. */
function damage(node: Postern): void {
  const bytes = readFileSync(path(node))
  bytes.fill(0xa5, 4_096 * 3, 4_096 * 6)
  writeFileSync(path(node), bytes)
}

describe('a node of a cluster', () => {
  // In turn: who founded it, and who joined it.
  let founder: Postern
  let joined: Postern
  beforeAll(async () => {
    const at = (name: string) => ['--name', name, '--peer', `127.0.0.1:${freePort()}`]
    founder = await Postern.start({ options: at('mx1') })
    await founder.addDomain('a.example', 'smtp://127.0.0.1:9')
    await founder.command('operator', 'add', 'ann', '--password', '-')
    const { token } = await founder.json<{ token: string }>('invite')
    joined = await Postern.start({ options: [...at('mx2'), '--join', token] })
  }, 60_000)
  afterAll(async () => {
    await founder.dispose()
    await joined.dispose()
  })

  test.each(['joined', 'founder'])(
    'that lost its database is refused with the way out, and reads all of it from its peer (%s)',
    async (which) => {
      const [lost, peer] = which === 'joined' ? [joined, founder] : [founder, joined]
      const before = await lost.json<unknown>('config', 'history')
      const { node } = await lost.json<{ node: string }>('status')
      await lost.set('policy.hold', which === 'joined' ? '6.5' : '7.5')
      await until(
        async () =>
          (await peer.command('config', 'get', 'policy.hold')).out ===
          (which === 'joined' ? '6.5\n' : '7.5\n'),
      )
      expect(await lost.stop()).toBe(0)
      damage(lost)
      const damaged = await refusalOf(lost)
      expect(damaged).toContain('is damaged')
      expect(damaged).toContain('--rebuild-state')
      const aside = readFileSync(path(lost))
      renameSync(path(lost), path(lost, 'gone'))
      const gone = await refusalOf(lost)
      expect(gone).toContain('is gone, and this node has peers')
      renameSync(path(lost, 'gone'), path(lost))

      await lost.begin('--rebuild-state')
      const names = readdirSync(lost.data).filter((name) => name.startsWith('state.db.damaged-'))
      expect(names.length).toBe(1)
      expect(readFileSync(path(lost, names[0]))).toEqual(aside)
      expect(lost.stdout).toBe('ready\n')
      expect(JSON.parse(readFileSync(path(lost, 'node.key'), 'utf8'))).toMatchObject({
        awaits: false,
      })
      const status = await lost.json<{ node: string; nodes: { state: string }[] }>('status')
      expect(status.node).toBe(node)
      expect(status.nodes.length).toBe(2)
      expect(await answerTo(lost, 'x@a.example')).toBe(250)
      expect((await lost.json<unknown[]>('config', 'history')).length).toBeGreaterThan(
        (before as unknown[]).length,
      )
      // What it does now reaches the others, and what they do reaches it.
      await lost.set('policy.reject', '11.5')
      await until(
        async () => (await peer.command('config', 'get', 'policy.reject')).out === '11.5\n',
      )
      await peer.set('policy.reject', '12.5')
      await until(
        async () => (await lost.command('config', 'get', 'policy.reject')).out === '12.5\n',
      )
      // The option may stay in a unit: a database that is whole is not touched.
      expect(await lost.stop()).toBe(0)
      const { ino } = statSync(path(lost))
      await lost.begin('--rebuild-state')
      expect(statSync(path(lost)).ino).toBe(ino)
      rmSync(path(lost, names[0]))
    },
    120_000,
  )

  test('takes no mail before it has read all, however often it starts', async () => {
    expect(await founder.stop()).toBe(0)
    expect(await joined.stop()).toBe(0)
    damage(founder)
    for (const options of [['--rebuild-state'], []]) {
      const started = founder.begin(...options)
      const failed = started.then(
        () => 'ready',
        () => 'ended',
      )
      await until(async () => {
        const status = await founder.status().catch(() => null)
        return status !== null && !status.ready
      })
      expect(founder.stdout).toBe('')
      expect(await founder.stop(10_000)).toBe(0)
      expect(await failed).toBe('ended')
    }
    const [, again] = await Promise.all([joined.begin(), founder.begin()])
    expect(again).toBeUndefined()
    expect(await answerTo(founder, 'x@a.example')).toBe(250)
  }, 120_000)
})

test('a node alone whose database is damaged is refused, with and without the option', async () => {
  const node = await Postern.start()
  try {
    expect(await node.stop()).toBe(0)
    damage(node)
    expect(await refusalOf(node)).toContain('is damaged')
    await expect(node.begin('--rebuild-state')).rejects.toThrow('No other node is known')
    rmSync(path(node))
    await node.begin()
    expect((await node.status()).ready).toBe(true)
  } finally {
    await node.dispose()
  }
}, 60_000)
