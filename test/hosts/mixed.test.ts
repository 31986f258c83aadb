/**
 * An older build beside this one: both converge, whoever is first. The older one is built from the
 * history of this repository: the commit that POSTERN_OLDER names, or the first whose nodes sync.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isSoak, PATIENCE_MS } from '../process/counts.ts'
import { hostLacks, ROOT } from '../real.ts'
import { HostCluster, onHosts, until } from './cluster.ts'
import { Net } from './net.ts'

/** The first commit whose nodes sync with ours: older ones know no peers, or fail to join. */
const FIRST = 'cluster: The end of a join is not its failure'

const older = isSoak ? olderCommit() : null
const suite = !isSoak
  ? hostLacks('the time of run soak')
  : older === null
    ? hostLacks('the history of this repository')
    : onHosts

suite('a pair of builds', () => {
  const place = mkdtempSync(join(tmpdir(), 'postern-mixed-'))
  const source = join(place, 'source')
  const program = join(place, 'postern')
  let net: Net
  beforeAll(async () => {
    net = new Net(4)
    await Bun.$`git -C ${ROOT} archive ${older} --prefix=source/ | tar -x -C ${place}`.quiet()
    symlinkSync(join(ROOT, 'node_modules'), join(source, 'node_modules'))
    const built =
      await Bun.$`${process.execPath} build --compile --splitting --format=esm --no-compile-autoload-dotenv --no-compile-autoload-bunfig --outfile ${program} src/main.ts`
        .cwd(source)
        .quiet()
        .nothrow()
    if (!existsSync(program)) throw new Error(`${built.stdout}${built.stderr}`)
  }, PATIENCE_MS)
  afterAll(() => {
    net?.dispose()
    rmSync(place, { recursive: true, force: true })
  })

  for (const [name, hosts, oldHosts] of [
    ['the older one first', [1, 2], [1]],
    ['the newer one first', [3, 4], [4]],
  ] as const) {
    test(
      `converges both ways, ${name}`,
      async () => {
        const cluster = await HostCluster.start(net, hosts, (host) =>
          oldHosts.some((old) => old === host) ? { program } : {},
        )
        try {
          const [first, second] = hosts
          await converge(cluster, first, second)
          // Each is upgraded, or not yet, and starts again.
          await cluster.node(second).stop()
          await cluster.set(first, 'quarantine.keep', 44)
          await cluster.node(second).begin()
          expect(await cluster.msUntilSet(hosts, 'quarantine.keep', 44)).toBeFinite()
          await converge(cluster, second, first)
        } finally {
          await cluster.dispose()
        }
      },
      PATIENCE_MS,
    )
  }
})

let round = 100

/** Settings, domains and list entries of each are in force on the other. */
async function converge(cluster: HostCluster, one: number, other: number): Promise<void> {
  round += 1
  await cluster.set(one, 'trace.keep', round)
  expect(await cluster.msUntilSet([other], 'trace.keep', round)).toBeFinite()
  await cluster.node(other).api(`/api/v1/domains/d${round}.example`, {
    method: 'PUT',
    body: JSON.stringify({ nextHops: ['smtp://192.0.2.1:25'] }),
  })
  await cluster.node(one).api('/api/v1/lists/block', {
    method: 'POST',
    body: JSON.stringify({ kind: 'sender', value: `@b${round}.example` }),
  })
  expect(await until(() => cluster.agree([one, other]), 20_000)).toBeTrue()
  for (const host of [one, other]) {
    const node = cluster.node(host)
    expect((await node.fetch(`/api/v1/domains/d${round}.example`)).status).toBe(200)
    expect(await (await node.fetch('/api/v1/lists/block')).text()).toContain(`@b${round}.example`)
    expect((await cluster.view(host)).repairs).toBe(0)
  }
}

/** A commit of before, whose nodes sync; null: this is no clone of it. */
function olderCommit(): string | null {
  const asked = process.env['POSTERN_OLDER']
  const words =
    asked === undefined || asked === ''
      ? ['log', '-1', '--format=%H', '--fixed-strings', `--grep=${FIRST}`]
      : ['rev-parse', '--verify', `${asked}^{commit}`]
  const { exitCode, stdout } = Bun.spawnSync(['git', '-C', ROOT, ...words], { stderr: 'ignore' })
  const commit = stdout.toString().trim()
  return exitCode === 0 && commit !== '' ? commit : null
}
