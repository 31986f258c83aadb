/** Documents that act by themselves are found; the same documents without it are clean. */
import { describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { attached } from './attached.ts'
import { compound, docx, HOSTILE, macros, pdf, relations } from './document-samples.ts'
import { lookLong } from './look.ts'
import { needs } from './real.ts'

const INSPECTORS = ['attachments', 'eicar', 'documents']

async function look(name: string, content: Uint8Array, settings: Record<string, unknown> = {}) {
  const config = { ...PLAIN_CONFIG, settings: { ...PLAIN_CONFIG.settings, ...settings } }
  const { findings, causes, insight } = await lookLong(attached(name, content), {
    inspectors: INSPECTORS,
    config,
  })
  expect(causes).toEqual([])
  return { rules: findings.map(({ rule }) => rule), findings, insight }
}

describe('documents that act by themselves', () => {
  for (const [title, { name, content, rule }] of Object.entries(HOSTILE)) {
    test(title, async () => {
      const { findings } = await look(name, content)
      const found = findings.find((finding) => finding.rule === rule)
      expect(findings.map((finding) => finding.rule)).toContain(rule)
      expect(found?.score).toBeGreaterThan(0)
      expect(found?.evidence).toMatch(/\.$/)
    })
  }
})

describe('documents that do not', () => {
  const clean: Record<string, readonly [string, Uint8Array]> = {
    'a letter': ['a.docx', docx({})],
    'a letter with a link': [
      'a.docx',
      docx({ 'word/_rels/document.xml.rels': relations('hyperlink', 'https://www.example.com/') }),
    ],
    'a letter with the template of its author': [
      'a.docx',
      docx({
        'word/_rels/settings.xml.rels': relations(
          'attachedTemplate',
          'file:///C:\\Users\\a\\Templates\\Letter.dotm',
        ),
      }),
    ],
    'a letter with a picture from the web': [
      'a.docx',
      docx({ 'word/_rels/document.xml.rels': relations('image', 'https://www.example.com/a.png') }),
    ],
    'a letter about DDE': [
      'a.docx',
      docx({
        'word/document.xml': '<w:document><w:p><w:t>DDEAUTO is dangerous</w:t></w:p></w:document>',
      }),
    ],
    'an old letter': [
      'a.doc',
      compound({ WordDocument: Buffer.alloc(5_000), '1Table': Buffer.alloc(5_000) }),
    ],
    'an old letter with empty modules': [
      'a.doc',
      compound({
        WordDocument: Buffer.alloc(5_000),
        ...macros({ source: 'Attribute VB_Name = "ThisDocument"\r\n' }, 'Macros/'),
      }),
    ],
    'a PDF that opens at its second page': ['a.pdf', pdf([], '/OpenAction [3 0 R /Fit]')],
    'a PDF with a link': ['a.pdf', pdf(['<< /S /URI /URI (https://www.example.com/a\\(1\\)) >>'])],
    'rich text': ['a.rtf', Buffer.from('{\\rtf1\\ansi Hello {\\b world}}')],
    'a drawing': [
      'a.svg',
      Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'),
    ],
    'a table': ['a.csv', Buffer.from('Name,Sum\r\n-12,+4\r\n"cmd | more",=A1\r\n')],
  }
  for (const [title, [name, content]] of Object.entries(clean)) {
    test(title, async () => {
      expect((await look(name, content)).rules).toEqual([])
    })
  }
})

test('links of documents are seen as the reader would follow them', async () => {
  const { insight } = await look(
    'a.pdf',
    pdf(['<< /S /URI /URI (https://www.example.com/a\\(1\\)) >>']),
  )
  expect(insight.urls).toEqual(['https://www.example.com/a(1)'])
})

needs('qpdf')('locked PDF', () => {
  const plain = pdf(
    ['<< /S /JavaScript /JS (this.exportDataObject\\({cName:"a"}\\);) >>'],
    '/OpenAction 4 0 R',
  )
  const lock = (user: string, ...options: readonly string[]): Buffer => {
    const dir = mkdtempSync(join(tmpdir(), 'postern-pdf-'))
    try {
      writeFileSync(join(dir, 'in.pdf'), plain)
      const words = ['--allow-weak-crypto', '--object-streams=generate', '--encrypt', user, 'owner']
      // It warns of the table that it had to make, and ends with 3.
      Bun.spawnSync(['qpdf', ...words, ...options, '--', 'in.pdf', 'out.pdf'], { cwd: dir })
      return readFileSync(join(dir, 'out.pdf'))
    } finally {
      rmSync(dir, { recursive: true })
    }
  }
  const FORMS = [
    ['40'],
    ['128', '--use-aes=n'],
    ['128', '--use-aes=y'],
    ['256', '--force-R5'],
    ['256'],
  ]
  for (const form of FORMS) {
    test(`${form.join(' ')}: locked against printing only, it is looked into`, async () => {
      const { rules } = await look('a.pdf', lock('', ...form))
      expect(rules).toContain('PDF_SCRIPT_HOSTILE')
      expect(rules).not.toContain('DOCUMENT_ENCRYPTED')
    })
    test(`${form.join(' ')}: locked with a password, it is said`, async () => {
      expect((await look('a.pdf', lock('secret', ...form))).rules).toContain('DOCUMENT_ENCRYPTED')
    })
  }
})

test.each([
  ['hold', 8],
  ['score', 4],
  ['pass', 0],
])('macros that run by themselves: %s', async (policy, score) => {
  const sample = HOSTILE['macros of Word that run']
  const { findings } = await look('a.docm', sample?.content ?? Buffer.of(), {
    'content.macros': policy,
  })
  expect(findings.find(({ rule }) => rule === 'OFFICE_MACROS_RUN')?.score).toBe(score)
})

test('endings that the operator names are held', async () => {
  const { findings } = await look('a.zzz', Buffer.from('x'), { 'content.extensions': ['zzz'] })
  expect(findings.map(({ rule, score }) => [rule, score])).toEqual([['BAD_ATTACHMENT_NAME', 8]])
})

test('a document cut anywhere, or with a changed octet, is answered', async () => {
  for (const { name, content } of Object.values(HOSTILE)) {
    const step = Math.max(1, content.length >> 4)
    for (let at = 0; at < content.length; at += step) {
      await look(name, content.subarray(0, at))
      const changed = Buffer.from(content)
      changed[at] = (changed[at] ?? 0) ^ 0xff
      await look(name, changed)
    }
  }
}, 60_000)
