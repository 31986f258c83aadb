/** The house is tidy, and each of its fences is able to find what it is there for. */
import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './real.ts'
import { type Sources, untidy } from './tidy.ts'

/** Files that hold text of ours. Test mail is other people's, and these two hold the patterns. */
const OURS = [
  '{src,web,test,appliance}/**/*.{ts,css,js,sql,md,txt,html,svg}',
  '.ci/*',
  '*.{md,json,toml,lock}',
].map((pattern) => new Bun.Glob(pattern))
const PATTERNS = new Set(['test/tidy.ts', 'test/tidy.test.ts'])

function ours(): Sources {
  const sources = new Map<string, string>()
  const paths = OURS.flatMap((glob) => [...glob.scanSync({ cwd: ROOT, dot: true })])
  for (const path of paths.sort()) {
    if (path.startsWith('test/mail/') || PATTERNS.has(path)) continue
    sources.set(path, readFileSync(join(ROOT, path), 'utf8'))
  }
  return sources
}

test('every file keeps to the fences of the house', () => {
  const sources = ours()
  expect(sources.has('src/main.ts') && sources.has('package.json')).toBe(true)
  expect(untidy(sources)).toEqual([])
})

const HEADER = '/** A file. */\n'

/** What the rules say about one file, and about a second one that it may need. */
function judge(path: string, body: string, ...more: readonly [string, string][]): string[] {
  return untidy(
    new Map([[path, HEADER + body], ...more.map(([at, text]) => [at, HEADER + text] as const)]),
  )
}

describe('a planted violation is found', () => {
  const planted: readonly (readonly [promise: string, path: string, body: string, says: string])[] =
    [
      [
        'base imports nothing of ours',
        'src/base/x.ts',
        "import { a } from '../message/a.ts'",
        'downwards',
      ],
      [
        'a type upwards is upwards too',
        'src/store/x.ts',
        "import type { A } from '../mail/queue/a.ts'",
        'downwards',
      ],
      [
        'decide is pure: no store',
        'src/mail/decide/x.ts',
        "import { a } from '../../store/a.ts'",
        'downwards',
      ],
      [
        'the web does not reach the store',
        'web/pages/x.ts',
        "import { a } from '../../src/store/a.ts'",
        'downwards',
      ],
      [
        'commands do not reach the stages',
        'src/cli/x.ts',
        "import { a } from '../mail/queue/a.ts'",
        'downwards',
      ],
      [
        'commands do not reach the web',
        'src/cli/x.ts',
        "import { a } from '../../web/a.ts'",
        'downwards',
      ],
      [
        'the node does not know its process',
        'src/node.ts',
        "import { a } from './main.ts'",
        'downwards',
      ],
      [
        'a part of the node does not know the whole',
        'src/node/x.ts',
        "import { a } from '../node.ts'",
        'downwards',
      ],
      [
        'a later import() counts',
        'src/admin/x.ts',
        "const a = await import('../cli/a.ts')",
        'downwards',
      ],
      ['a re-export counts', 'src/message/x.ts', "export { a } from '../store/a.ts'", 'downwards'],
      [
        'no stage imports a stage',
        'src/mail/queue/x.ts',
        "import { a } from '../deliver/a.ts'",
        'stage',
      ],
      [
        'no stage imports the pipeline',
        'src/mail/queue/x.ts',
        "import { a } from '../pipeline.ts'",
        'stage',
      ],
      ['an extension is written', 'src/base/x.ts', "import { a } from './a'", 'extension'],
      ['elysia stays in the web', 'src/admin/x.ts', "import { Elysia } from 'elysia'", 'elysia'],
      [
        'a path of a package is the package',
        'src/node.ts',
        "import { a } from 'drizzle-orm/bun-sqlite'",
        'drizzle-orm',
      ],
      [
        'smtp-server stays behind the door',
        'src/mail/deliver/x.ts',
        "import { SMTPServer } from 'smtp-server'",
        'smtp-server',
      ],
      [
        'sqlite stays in the store',
        'src/mail/queue/x.ts',
        "import { Database } from 'bun:sqlite'",
        'bun:sqlite',
      ],
      [
        'hostile bytes are parsed by inspectors only',
        'src/admin/x.ts',
        "import { simpleParser } from 'mailparser'",
        'mailparser',
      ],
      [
        'names are asked in one file',
        'src/mail/deliver/x.ts',
        "import dns from 'node:dns/promises'",
        'node:dns',
      ],
      ['wall time', 'src/store/x.ts', 'const a = Date.now()', 'clock.wallMs'],
      ['wall time by new', 'src/store/x.ts', 'const a = new Date()', 'clock.wallMs'],
      ['monotonic time', 'src/store/x.ts', 'const a = performance.now()', 'clock.monoMs'],
      ['timers', 'web/x.ts', 'setTimeout(run, 5)', 'clock.after'],
      ['sleep', 'src/cli/x.ts', 'await Bun.sleep(5)', 'clock.after'],
      ['chance', 'src/store/x.ts', 'const a = Math.random()', 'Random'],
      ['chance by crypto', 'src/store/x.ts', 'crypto.getRandomValues(a)', 'Random'],
      ['console', 'src/cli/x.ts', 'console.log(1)', 'Observer'],
      ['exit', 'src/cli/x.ts', 'process.exit(1)', 'process.exitCode'],
      ['a silenced compiler', 'test/x.ts', '// @ts-ignore\n', 'narrower type'],
      ['as any', 'web/x.ts', 'const a = b as any', 'narrower type'],
      ['a parameter of type any', 'src/base/x.ts', 'function f(a: any) {}', 'narrower type'],
      ['any inside a generic', 'src/base/x.ts', 'const a: Map<string, any> = b', 'narrower type'],
      ['a list of any', 'src/base/x.ts', 'const a: any[] = []', 'narrower type'],
      ['a default export', 'web/x.ts', 'export default 1', 'named export'],
      ['an enum', 'src/base/x.ts', 'export enum A { B }', 'union'],
      [
        'a word that says nothing',
        'src/base/x.ts',
        'export class QueueManager {}',
        'word of the house',
      ],
      ['a file name that says nothing', 'src/base/string-utils.ts', '', 'word of the house'],
      ['a test that is switched off', 'test/x.test.ts', "test.skip('a', () => {})", 'needs()'],
      [
        'a test that switches off the others',
        'test/x.test.ts',
        "describe.only('a', () => {})",
        'needs()',
      ],
      ['a file of 701 lines', 'src/base/x.ts', 'f(1)\n'.repeat(700), '701 lines'],
      ['a long page', 'web/pages/x.ts', 'f(1)\n'.repeat(700), '701 lines'],
      ['a path of one machine', 'src/base/x.ts', "const a = '/home/ann/mail'", 'outside itself'],
    ]
  for (const [promise, path, body, says] of planted) {
    test(promise, () => {
      const found = judge(path, body)
      expect(found).toHaveLength(1)
      expect(found[0]).toContain(says)
      expect(found[0]).toStartWith(`${path}: `)
    })
  }

  test('a file without a header', () => {
    const found = untidy(new Map([['src/base/x.ts', 'export const a = 1\n']]))
    expect(found).toEqual(['src/base/x.ts: no header; say in its first line what the file is'])
  })

  test('a cycle of values', () => {
    const found = judge('src/base/a.ts', "import { b } from './b.ts'\nexport const a = () => b", [
      'src/base/b.ts',
      "import { a } from './a.ts'\nexport const b = () => a",
    ])
    expect(found).toEqual(['src/base/a.ts > src/base/b.ts > src/base/a.ts: a cycle of imports'])
  })

  test('a version range, and a package that nothing imports', () => {
    const manifest = (version: string) => JSON.stringify({ dependencies: { elysia: version } })
    const page = ['web/x.ts', `${HEADER}import { Elysia } from 'elysia'`] as const
    const ranged = untidy(new Map([['package.json', manifest('^1.4.30')], page]))
    expect(ranged).toEqual(['package.json: elysia ^1.4.30; pin one exact version'])
    const idle = untidy(new Map([['package.json', manifest('1.4.30')]]))
    expect(idle).toEqual(['package.json: nothing imports elysia; remove it'])
  })

  test('a registry in the lock file', () => {
    const found = untidy(new Map([['bun.lock', '"https://registry.example.com/elysia.tgz"']]))
    expect(found).toHaveLength(1)
  })
})

describe('what is allowed is not found', () => {
  const allowed: readonly (readonly [promise: string, path: string, body: string])[] = [
    ['imports downwards', 'web/x.ts', "import { a } from '../src/admin/a.ts'"],
    ['a type downwards', 'src/admin/x.ts', "import type { A } from '../mail/inspect/a.ts'"],
    ['the pipeline knows the stages', 'src/mail/pipeline.ts', "import { a } from './queue/a.ts'"],
    ['a stage imports itself', 'src/mail/queue/x.ts', "import { a } from './a.ts'"],
    ['a comment names what is banned', 'src/base/x.ts', '// Date.now() jumps\n/* console.log */'],
    ['a web address is no comment', 'src/base/x.ts', "const a = 'https://example.com/work/it'"],
    ['the clock reads the clock', 'src/base/clock.ts', 'const a = Date.now()'],
    ['a date from a number', 'src/base/x.ts', 'const a = new Date(5)'],
    ['the word any', 'src/base/x.ts', "const a = 'none, any, all'\nconst anyOf = 1"],
    ['a file of 700 lines', 'src/base/x.ts', 'f(1)\n'.repeat(699)],
    ['a long table of tests', 'test/x.ts', 'f(1)\n'.repeat(2_000)],
    ['tests may wait', 'test/x.ts', 'setTimeout(run, 5)'],
  ]
  for (const [promise, path, body] of allowed) {
    test(promise, () => expect(judge(path, body)).toEqual([]))
  }

  test('a cycle of types only', () => {
    const found = judge(
      'src/base/a.ts',
      "import type { B } from './b.ts'\nexport type A = { b: B | null }",
      ['src/base/b.ts', "import type { A } from './a.ts'\nexport type B = { a: A | null }"],
    )
    expect(found).toEqual([])
  })
})
