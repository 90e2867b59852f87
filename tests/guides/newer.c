/* SPDX-License-Identifier: Apache-2.0 */
/* Makes any program look like a redis-server that the redis guide does not know: 7.2.4. */
int RM_GetServerVersion(void);

int RM_GetServerVersion(void)
{
    return 0x00070204;
}
