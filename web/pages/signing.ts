/** Keys that sign mail of a domain: add, check, retire, remove. They are shown on the page of the domain. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../../src/base/errors.ts'
import { html, seeOther } from '../html.ts'
import { csrf } from '../parts/forms.ts'
import { shell } from '../parts/shell.ts'
import { keyPath, NO_SIGNING, type SigningSheet } from '../parts/signing.ts'
import type { Site } from '../site.ts'
import { storedDomainPage } from './domains.ts'

const DOMAIN = t.Object({ name: t.String({ maxLength: 300 }) })
const KEY = t.Object({ name: t.String({ maxLength: 300 }), selector: t.String({ maxLength: 60 }) })

export function signingPages(site: Site) {
  const { admin, guard, flashes } = site
  const change = async (
    request: Request,
    domain: string,
    sheet: Omit<SigningSheet, 'refusal'>,
    run: () => Promise<string> | string,
  ): Promise<Response> => {
    try {
      flashes.add(guard.visitOf(request).session, await run())
      return seeOther(`/domains/${encodeURIComponent(domain)}#signing`)
    } catch (error) {
      if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
      // Its key went away in this moment, by another operator: there is no place to say so but above.
      if (error.code === 'notFound') throw error
      return storedDomainPage(site, request, domain, { ...sheet, refusal: error })
    }
  }
  return new Elysia({ prefix: '/domains/:name/dkim' })
    .get('/', ({ params }) => seeOther(`/domains/${encodeURIComponent(params.name)}#signing`), {
      params: DOMAIN,
    })
    .post(
      '/',
      ({ request, params, body }) => {
        const { selector, algorithm } = body
        const typed = { selector, algorithm }
        return change(request, params.name, { typed, about: null }, async () => {
          const author = guard.authorOf(request)
          const key = await admin.addSigningKey(author, { domain: params.name, ...typed })
          return `Added ${key.selector}; it signs when the DNS has its record`
        })
      },
      {
        params: DOMAIN,
        body: t.Object({
          selector: t.String({ maxLength: 60 }),
          algorithm: t.String({ maxLength: 20 }),
        }),
      },
    )
    .get(
      '/:selector',
      ({ params }) => seeOther(`/domains/${encodeURIComponent(params.name)}#signing`),
      {
        params: KEY,
      },
    )
    .post(
      '/:selector',
      ({ request, params, body }) => {
        const { name, selector } = params
        const sheet = { typed: NO_SIGNING.typed, about: selector }
        return change(request, name, sheet, async () => {
          const author = guard.authorOf(request)
          if (body.act === 'check') {
            await admin.checkSigningKey(author, name, selector)
            return `The DNS has the record of ${selector}; it signs, on all nodes`
          }
          admin.retireSigningKey(author, name, selector)
          return `${selector} signs no more`
        })
      },
      {
        params: KEY,
        body: t.Object({ act: t.Union([t.Literal('check'), t.Literal('retire')]) }),
      },
    )
    .get('/:selector/remove', ({ request, params }) => removePage(site, request, params), {
      params: KEY,
    })
    .post(
      '/:selector/remove',
      ({ request, params }) => {
        const { name, selector } = params
        const sheet = { typed: NO_SIGNING.typed, about: selector }
        return change(request, name, sheet, () => {
          admin.removeSigningKey(guard.authorOf(request), name, selector)
          return `Removed ${selector}`
        })
      },
      { params: KEY },
    )
}

function removePage(
  site: Site,
  request: Request,
  { name, selector }: { readonly name: string; readonly selector: string },
): Response {
  const visit = site.guard.visitOf(request)
  const keys = site.admin.signingKeys(name)
  const key = keys.find((one) => one.selector === selector)
  if (key === undefined) {
    throw new RefusalError(
      'notFound',
      'selector',
      `${name} has no key ${selector}.`,
      'See the list of its keys.',
    )
  }
  const isLast =
    key.state === 'active' && keys.filter(({ state }) => state === 'active').length === 1
  const main = html`<div class="head"><h1>Remove ${selector}?</h1></div>
<form class="card" method="post" action="${keyPath(key)}/remove">${csrf(visit)}<div class="body first stack"><p>${isLast ? `It is the only key that signs: mail of ${name} goes out unsigned from then on. ` : ''}The key is gone from all nodes, and cannot come back. Leave ${key.recordName} in the DNS for a week, for mail that is on its way.</p>
<div class="acts"><button class="btn danger">Remove</button><a class="btn quiet" href="/domains/${name}#signing">Keep it</a></div></div></form>`
  return shell(site, visit, { title: `Remove ${selector}`, at: 'settings', main })
}
