/** Add and revoke API tokens; they are shown on the page of the operators. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../../src/base/errors.ts'
import { seeOther } from '../html.ts'
import { NO_TOKEN } from '../parts/tokens.ts'
import type { Site } from '../site.ts'
import { operatorsPage } from './operators.ts'

export function tokenPages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/tokens' })
    .get('/', () => seeOther('/operators#tokens'))
    .post(
      '/',
      ({ request, body }) => {
        const { name, role = 'viewer', days = '' } = body
        const typed = { name, role, days }
        try {
          const made = admin.addApiToken(guard.authorOf(request), {
            name: name.trim(),
            role,
            days: daysOf(days.trim()),
          })
          return operatorsPage(site, request, { tokens: { ...NO_TOKEN, made } })
        } catch (error) {
          if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
          return operatorsPage(site, request, { tokens: { typed, made: null, refusal: error } })
        }
      },
      {
        body: t.Object({
          name: t.String({ maxLength: 200 }),
          role: t.Optional(t.String({ maxLength: 20 })),
          days: t.Optional(t.String({ maxLength: 20 })),
        }),
      },
    )
    .post(
      '/:id/remove',
      ({ request, params }) => {
        admin.removeApiToken(guard.authorOf(request), params.id)
        flashes.add(guard.visitOf(request).session, 'The API token is revoked on all nodes')
        return seeOther('/operators')
      },
      { params: t.Object({ id: t.String({ maxLength: 100 }) }) },
    )
}

/** Null: no end. @throws RefusalError invalid */
function daysOf(text: string): number | null {
  if (text === '') return null
  if (/^\d{1,6}$/.test(text)) return Number(text)
  throw new RefusalError(
    'invalid',
    'days',
    `“${text}” is no whole number.`,
    'Enter digits only, or nothing for no end.',
  )
}
