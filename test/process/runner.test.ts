/** The runner of the tests: what falls over is never counted as passed, and the last line tells. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { cpSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ROOT } from '../real.ts'
import { countJunit, judge } from '../run.ts'

const GOOD = `import { test } from 'bun:test'\ntest('a', () => {})\ntest('b', () => {})\n`
const SUITES = {
  good: GOOD,
  bad: `import { expect, test } from 'bun:test'\ntest('a', () => {})\ntest('no', () => expect(1).toBe(2))\n`,
  empty: `export {}\n`,
  crash: `import { test } from 'bun:test'\ntest('a', () => {})\nprocess.kill(process.pid, 'SIGKILL')\n`,
  loose: `import { test } from 'bun:test'\ntest('a', () => {})\nthrow new Error('outside of a test')\n`,
  hang: `import { test } from 'bun:test'\ntest('a', () => Bun.sleepSync(60_000))\n`,
  holds: `import { test } from 'bun:test'\ntest('a', () => {\n  Bun.spawnSync(['sh', '-c', 'setsid sleep 25 &'], { stdio: ['ignore', 'inherit', 'inherit'] })\n})\n`,
  hushed: `import { test } from 'bun:test'\ntest('a', () => {})\ntest.skip('b', () => {})\n`,
  host: `import { test } from 'bun:test'\nimport { hostLacks } from './real.ts'\nhostLacks('a moon')('a promise', () => { test('a', () => {}) })\n`,
  needs: `import { test } from 'bun:test'\nimport { needs } from './real.ts'\nneeds('nothing-such')('a promise', () => { test('a', () => {}) })\n`,
}

/** A repository of its own with the real runner, and tools that say what they are told to. */
class Repository {
  readonly dir = mkdtempSync(join(tmpdir(), 'postern-runner-'))

  constructor() {
    for (const file of ['test/run.ts', 'test/real.ts', 'appliance/build.ts']) this.#copy(file)
    this.write('package.json', '{"name":"sample","version":"0.0.1"}\n')
    this.write('appliance/packages.txt', '# packages\nnothing-such /nowhere/nothing-such none\n')
    this.write('src/main.ts', `process.stdout.write('built\\n')\n`)
    this.tool('node_modules/typescript/bin/tsc', 0)
    this.tool('node_modules/@biomejs/biome/bin/biome', 0)
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.dir, path)), { recursive: true })
    writeFileSync(join(this.dir, path), text)
  }

  tool(path: string, code: number): void {
    this.write(path, `process.stdout.write('said ${code}\\n'); process.exitCode = ${code}\n`)
  }

  #copy(path: string): void {
    mkdirSync(dirname(join(this.dir, path)), { recursive: true })
    cpSync(join(ROOT, path), join(this.dir, path))
  }

  /** Exactly these suites. */
  suites(...names: readonly (keyof typeof SUITES)[]): void {
    for (const name of Object.keys(SUITES)) {
      rmSync(join(this.dir, `test/${name}.test.ts`), { force: true })
    }
    for (const name of names) this.write(`test/${name}.test.ts`, SUITES[name])
  }

  run(environment: Readonly<Record<string, string>> = {}, ...words: readonly string[]) {
    const { CI: _, ...rest } = process.env
    const from = performance.now()
    const child = Bun.spawnSync([process.execPath, 'test/run.ts', ...words], {
      cwd: this.dir,
      env: { ...rest, POSTERN_LIGHT_LIMIT_MS: '4000', ...environment },
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const out = child.stdout.toString()
    return {
      code: child.exitCode,
      out,
      last: out.trimEnd().split('\n').at(-1),
      tookMs: performance.now() - from,
    }
  }
}

describe('a run', () => {
  let repository: Repository
  beforeAll(() => {
    repository = new Repository()
  })
  afterAll(() => rmSync(repository.dir, { recursive: true, force: true }))

  test('counts type check, lint, build and every test', () => {
    repository.suites('good')
    const { code, last } = repository.run()
    expect({ code, last }).toEqual({ code: 0, last: '5 passed, 0 failed' })
  })

  test('fails with a failing test, and shows it', () => {
    repository.suites('good', 'bad')
    const { code, last, out } = repository.run()
    expect({ code, last }).toEqual({ code: 1, last: '6 passed, 1 failed' })
    expect(out).toMatch(/^FAIL test\/bad\.test\.ts/m)
    expect(out).toContain('(fail) no')
  })

  for (const name of ['empty', 'crash', 'loose', 'hushed'] as const) {
    test(`a suite that is ${name} counts as failed`, () => {
      repository.suites('good', name)
      const { code, out, last } = repository.run()
      expect(code).toBe(1)
      expect(last).toMatch(/^\d+ passed, 1 failed$/)
      expect(out).toMatch(new RegExp(`^FAIL test/${name}\\.test\\.ts`, 'm'))
    })
  }

  test('a suite that hangs is ended at its limit and counts as failed', () => {
    repository.suites('good', 'hang')
    const { code, out, last } = repository.run({ POSTERN_LIGHT_LIMIT_MS: '1500' })
    expect({ code, last }).toEqual({ code: 1, last: '5 passed, 1 failed' })
    expect(out).toContain('ended after 1.5 s')
  }, 30_000)

  test('a child that outlives its suite and holds the output open holds up nobody', () => {
    repository.suites('holds')
    const { last, tookMs } = repository.run()
    expect(last).toBe('4 passed, 0 failed')
    expect(tookMs).toBeLessThan(20_000)
  }, 40_000)

  test('a skipped suite is named with its package, and is a failure on CI only', () => {
    repository.suites('good', 'needs')
    const here = repository.run()
    expect({ code: here.code, last: here.last }).toEqual({ code: 0, last: '5 passed, 0 failed' })
    expect(here.out).toContain('skipped test/needs.test.ts: a promise (needs nothing-such)')
    expect(here.out).toContain('apt-get install nothing-such')
    const there = repository.run({ CI: 'true' })
    expect({ code: there.code, last: there.last }).toEqual({ code: 1, last: '5 passed, 1 failed' })
  })

  test('what a host cannot do is named, and no failure even on CI', () => {
    repository.suites('good', 'host')
    const { code, out, last } = repository.run({ CI: 'true' })
    expect({ code, last }).toEqual({ code: 0, last: '5 passed, 0 failed' })
    expect(out).toContain('skipped test/host.test.ts: a promise (needs a moon)')
  })

  test('a type error, a lint error and a build that fails are each one failure', () => {
    repository.suites('good')
    repository.tool('node_modules/typescript/bin/tsc', 2)
    repository.tool('node_modules/@biomejs/biome/bin/biome', 1)
    repository.write('src/main.ts', `import './nowhere.ts'\n`)
    const { code, last } = repository.run()
    expect({ code, last }).toEqual({ code: 1, last: '2 passed, 3 failed' })
    repository.tool('node_modules/typescript/bin/tsc', 0)
    repository.tool('node_modules/@biomejs/biome/bin/biome', 0)
    repository.write('src/main.ts', `process.stdout.write('built\\n')\n`)
  })

  test('the binary is built again when a source changes, and only then', () => {
    repository.suites('good')
    const said = () => Bun.spawnSync([join(repository.dir, 'dist/postern')]).stdout.toString()
    const built = () => statSync(join(repository.dir, 'dist/postern')).ino
    repository.run()
    expect(said()).toBe('built\n')
    const before = built()
    repository.run()
    expect(built()).toBe(before)
    repository.write('src/part.ts', `export const part = 'changed'\n`)
    repository.write(
      'src/main.ts',
      `import { part } from './part.ts'\nprocess.stdout.write(part)\n`,
    )
    repository.run()
    expect(said()).toBe('changed')
    repository.write('src/part.ts', `export const part = 'again'\n`)
    repository.run()
    expect(said()).toBe('again')
  }, 30_000)

  test('words choose suites by their path', () => {
    repository.suites('good', 'bad')
    expect(repository.run({}, 'good').last).toBe('4 passed, 0 failed')
  })
})

describe('a report', () => {
  test('that is missing, empty or unexplained is a failure', () => {
    const none = { passed: 0, failed: 0, skipped: 0 }
    expect(judge(null, 0).failed).toBe(1)
    expect(judge(none, 0).failed).toBe(1)
    expect(judge({ ...none, passed: 3 }, 1).failed).toBe(1)
    expect(judge({ ...none, passed: 3 }, null).failed).toBe(1)
    expect(judge({ ...none, skipped: 3 }, 0, true).failed).toBe(0)
    expect(judge({ ...none, passed: 3, skipped: 1 }, 0).failed).toBe(1)
    expect(judge({ ...none, passed: 3, failed: 2 }, 1).failed).toBe(2)
  })

  test('is read from its first tag', () => {
    const text = '<?xml?>\n<testsuites name="bun test" tests="9" failures="2" skipped="3" time="1">'
    expect(countJunit(text)).toEqual({ passed: 4, failed: 2, skipped: 3 })
    expect(countJunit('')).toBe(null)
  })
})
